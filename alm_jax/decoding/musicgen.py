"""Codes of several codebooks, one position at a time, each codebook later than the one before.

Copet et al. 2023 (https://arxiv.org/abs/2306.05284): the delay pattern of section 2.2, and
classifier-free guidance (Ho and Salimans 2022, https://arxiv.org/abs/2207.12598).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


@functools.partial(
    jax.jit, static_argnames=('module', 'frames', 'guidance', 'greedy', 'temperature', 'top_k')
)
def compose(
    module: nn.Module,
    params: Any,
    memory_bsd: jax.Array,
    memory_mask_bs: jax.Array,
    rng: jax.Array,
    *,
    frames: int,
    guidance: float = 1.0,
    greedy: bool = True,
    temperature: float = 1.0,
    top_k: int = 0,
) -> jax.Array:
    """Codes beside encoded texts.

    Args:
      module: see models.text.musicgen.MusicgenDecoder.
      params: its parameters.
      memory_bsd, memory_mask_bs: the texts, zeros at padding.
      rng: of sampling.
      frames: codes of each codebook.
      guidance: how far logits are drawn from those without a text to those with it; 1 computes
        only the latter.
      greedy: takes the likeliest code, else one at random.
      temperature: of random ones.
      top_k: likeliest codes that random ones are among; 0 is all.

    Returns:
      int32 [b, codebooks, frames], not delayed.
    """
    size, batch = module.size, memory_bsd.shape[0]
    guided = guidance > 1
    if guided:
        memory_bsd = jnp.concatenate([memory_bsd, jnp.zeros_like(memory_bsd)])
        memory_mask_bs = jnp.concatenate([memory_mask_bs, jnp.zeros_like(memory_mask_bs)])
    delays = np.array(size.delays)
    length = frames + delays.max() + 1  # the start and what is generated
    ahead = np.arange(length) - 1 - delays[:, None]  # [codebooks, position]: which code it holds
    holds = jnp.asarray((ahead >= 0) & (ahead < frames))

    def choose(logits_bqv, rng):
        if guided:
            with_text, without = jnp.split(logits_bqv, 2)
            logits_bqv = without + (with_text - without) * guidance
        if greedy:
            return jnp.argmax(logits_bqv, axis=-1).astype(jnp.int32)
        logits_bqv = logits_bqv / temperature
        if top_k:
            least = jax.lax.top_k(logits_bqv, min(top_k, size.rows))[0][..., -1:]
            logits_bqv = jnp.where(logits_bqv < least, -jnp.inf, logits_bqv)
        return jax.random.categorical(rng, logits_bqv).astype(jnp.int32)

    def call(apply, tokens_bq, cache, **memory):
        tokens = jnp.concatenate([tokens_bq] * (2 if guided else 1))[..., None]
        outputs = apply(tokens, memory_mask_bs=memory_mask_bs, cache=cache, **memory)
        return outputs['logits'][:, :, 0], outputs['cache']

    start = jnp.full((batch, size.codebooks), size.rows, jnp.int32)
    cache = module.empty_cache(memory_bsd.shape[0], length - 1)
    apply = functools.partial(module.apply, {'params': params})
    logits, cache = call(apply, start, cache, memory_bsd=memory_bsd)
    rngs = jax.random.split(rng, length - 1)
    first = choose(logits, rngs[0])

    if jax.default_backend() == 'cpu':  # elsewhere the second copy of the layers costs more
        stepper, step_params = module.one_by_one(params)
        apply = functools.partial(stepper.apply, {'params': step_params})

    def step(carry, inputs):
        tokens, cache = carry
        own, rng = inputs
        logits, cache = call(apply, jnp.where(own, tokens, size.rows), cache)
        tokens = choose(logits, rng)
        return (tokens, cache), tokens

    _, others = jax.lax.scan(step, (first, cache), (holds.T[1:-1], rngs[1:]))
    tokens_tbq = jnp.concatenate([first[None], others])
    books = [tokens_tbq[d : d + frames, :, book] for book, d in enumerate(size.delays)]
    return jnp.stack(books).transpose(2, 0, 1)
