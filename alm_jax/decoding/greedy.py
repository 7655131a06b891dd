"""Greedy decoding: the likeliest token, one at a time, with an explicit cache."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

# (tokens int32 [b], cache) -> (logits [b, vocabulary], cache)
Step = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


def greedy(
    step: Step,
    logits_bv: jax.Array,
    cache: Any,
    *,
    max_tokens: int,
    stop_ids: Sequence[int] = (),
    fill: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Appends tokens until every row has stopped, or ``max_tokens``. To be called under jit.

    Args:
      step: the model's.
      logits_bv: of the prompt's last token.
      cache: with the prompt in it, and room for ``max_tokens`` - 1 more.
      max_tokens: where rows stop at the latest; at least 1.
      stop_ids: tokens that end a row.
      fill: stands after the end.

    Returns:
      (tokens int32 [b, max_tokens], count int32 [b]): a stop token is among the tokens, but not
      counted.
    """
    stops = jnp.asarray(stop_ids, jnp.int32)

    def append(state, logits_bv):
        token = jnp.argmax(logits_bv, axis=-1).astype(jnp.int32)
        token = jnp.where(state['done'], fill, token)
        done = state['done'] | jnp.isin(token, stops)
        return {
            'tokens': state['tokens'].at[:, state['length']].set(token),
            'length': state['length'] + 1,
            'last': token,
            'count': state['count'] + ~done,
            'done': done,
        }

    def go_on(carry):
        state, _ = carry
        return (state['length'] < max_tokens) & ~jnp.all(state['done'])

    def body(carry):
        state, cache = carry
        logits_bv, cache = step(state['last'], cache)
        return append(state, logits_bv), cache

    batch = logits_bv.shape[0]
    start = {
        'tokens': jnp.full((batch, max_tokens), fill, jnp.int32),
        'length': jnp.zeros((), jnp.int32),
        'count': jnp.zeros(batch, jnp.int32),
        'done': jnp.zeros(batch, bool),
    }
    state, _ = jax.lax.while_loop(go_on, body, (append(start, logits_bv), cache))
    return state['tokens'], state['count']


@functools.partial(jax.jit, static_argnames=('module', 'max_tokens', 'stop_ids', 'fill'))
def continue_prompt(
    module: nn.Module,
    params: Any,
    token_ids_bt: jax.Array,
    token_mask_bt: jax.Array,
    embeddings_btd: jax.Array | None = None,
    *,
    max_tokens: int,
    stop_ids: tuple[int, ...] = (),
    fill: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Greedy continuation of prompts by a language model such as ``models.text.decoder``.

    Args:
      module: takes (token ids, mask, embeddings_btd=, cache=, logits_at_bn=), has ``empty_cache``
        and ``one_by_one``.
      params: its parameters.
      token_ids_bt: int32 [b, t]; a negative one stands for the embedding given for it.
      token_mask_bt: bool [b, t]; prompts may be padded anywhere and hold a token at least.
      embeddings_btd: [b, t, d] for the negative ones.
      max_tokens, stop_ids, fill: see ``greedy``.

    Returns:
      (tokens int32 [b, max_tokens], count int32 [b]), see ``greedy``.
    """
    batch, length = token_ids_bt.shape
    slots = jnp.arange(length)
    last = jnp.max(jnp.where(token_mask_bt, slots, 0), axis=1)
    prompt = module.apply(
        {'params': params},
        token_ids_bt,
        token_mask_bt,
        embeddings_btd=embeddings_btd,
        cache=module.empty_cache(batch, length + max_tokens - 1),
        logits_at_bn=last[:, None],
    )

    stepper, step_params = module, params
    if jax.default_backend() == 'cpu':  # elsewhere the second copy of the layers costs more
        stepper, step_params = module.one_by_one(params)

    def step(token_b, cache):
        outputs = stepper.apply({'params': step_params}, token_b[:, None], cache=cache)
        return outputs['logits'][:, 0], outputs['cache']

    return greedy(
        step,
        prompt['logits'][:, 0],
        prompt['cache'],
        max_tokens=max_tokens,
        stop_ids=stop_ids,
        fill=fill,
    )
