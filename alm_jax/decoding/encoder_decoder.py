"""Greedy decoding by a model with an encoder and a decoder of text, such as T5."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from alm_jax.decoding.greedy import greedy


@functools.partial(jax.jit, static_argnames=('module', 'start', 'max_tokens', 'stop_ids', 'fill'))
def answer(
    module: nn.Module,
    params: Any,
    token_ids_bt: jax.Array,
    token_mask_bt: jax.Array,
    *,
    start: int,
    max_tokens: int,
    stop_ids: tuple[int, ...] = (),
    fill: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """What the decoder writes beside encoded texts.

    Args:
      module: has ``encode``, ``decode``, ``empty_cache`` and ``one_by_one``, such as
        models.text.t5.T5.
      params: its parameters.
      token_ids_bt: int32 [b, t]; token_mask_bt: bool [b, t].
      start: the decoder's first token, not among the result.
      max_tokens, stop_ids, fill: see ``decoding.greedy.greedy``.

    Returns:
      (tokens int32 [b, max_tokens], count int32 [b]), see there.
    """
    batch = token_ids_bt.shape[0]
    encoded = module.apply({'params': params}, token_ids_bt, token_mask_bt, method='encode')
    first = module.apply(
        {'params': params},
        jnp.full((batch, 1), start, jnp.int32),
        None,
        encoded['tokens'],
        token_mask_bt,
        cache=module.empty_cache(batch, max_tokens),
        method='decode',
    )
    stepper, step_params = module, params
    if jax.default_backend() == 'cpu':  # elsewhere the second copy of the layers costs more
        stepper, step_params = module.one_by_one(params)

    def step(token_b, cache):
        outputs = stepper.apply(
            {'params': step_params},
            token_b[:, None],
            memory_mask_bs=token_mask_bt,
            cache=cache,
            method='decode',
        )
        return outputs['logits'][:, 0], outputs['cache']

    return greedy(
        step,
        first['logits'][:, 0],
        first['cache'],
        max_tokens=max_tokens,
        stop_ids=stop_ids,
        fill=fill,
    )
