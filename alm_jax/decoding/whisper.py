"""Whisper's greedy decoding: which tokens may follow which, and the loop under these rules.

The rules are those of Radford et al. 2022 (https://arxiv.org/abs/2212.04356, section 4.5) as
OpenAI's code and transformers apply them (WhisperTimeStampLogitsProcessor, SuppressTokens*).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from alm_jax.decoding.greedy import greedy

History = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class TokenRules:
    """What may be generated.

    Attributes:
      end: the token that ends a text.
      suppressed: tokens that never come.
      suppressed_first: tokens that do not come first.
      timestamps_from: id of <|0.00|>, from which on ids are times in steps of 20 ms; with it texts
        are divided by pairs of times that never fall, and start with one. None is no such rule.
      latest_first: largest first time, in steps; None is any.
    """

    end: int
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    timestamps_from: int | None = None
    latest_first: int | None = None

    def start(self, batch: int) -> History:
        """Nothing generated yet."""
        nothing = jnp.full(batch, -1, jnp.int32)
        count = jnp.zeros((), jnp.int32)
        return {'count': count, 'last': nothing, 'before': nothing, 'latest_time': nothing}

    def append(self, history: History, token_b: jax.Array) -> History:
        """``history`` and one more token in every row."""
        latest = history['latest_time']
        if self.timestamps_from is not None:
            latest = jnp.where(token_b >= self.timestamps_from, token_b, latest)
        return {
            'count': history['count'] + 1,
            'last': token_b,
            'before': history['last'],
            'latest_time': latest,
        }

    def apply(self, logits_bv: jax.Array, history: History) -> jax.Array:
        """Logits with -inf for what may not follow ``history``."""
        ids = jnp.arange(logits_bv.shape[1])
        forbidden = jnp.isin(ids, jnp.asarray(self.suppressed, jnp.int32))
        first = history['count'] == 0
        forbidden |= first & jnp.isin(ids, jnp.asarray(self.suppressed_first, jnp.int32))
        logits_bv = jnp.where(forbidden, -jnp.inf, logits_bv)
        return logits_bv if self.timestamps_from is None else self._times(logits_bv, history, first)

    def _times(self, logits_bv, history, first):
        ids = jnp.arange(logits_bv.shape[1])
        time = ids >= self.timestamps_from
        last = (history['last'] >= self.timestamps_from)[:, None]
        before = (history['count'] < 2) | (history['before'] >= self.timestamps_from)[:, None]
        latest = history['latest_time'][:, None]
        forbidden = ids == self.timestamps_from - 1  # <|notimestamps|>
        # After a pair of times comes text; after a single one, the other or the end.
        forbidden |= last & before & time
        forbidden |= last & ~before & (ids < self.end)
        # A text takes time: only the second of a pair may repeat what came before.
        forbidden |= time & (ids < latest + ~(last & ~before))
        forbidden |= first & ~time
        if self.latest_first is not None:
            forbidden |= first & (ids > self.timestamps_from + self.latest_first)
        logits_bv = jnp.where(forbidden, -jnp.inf, logits_bv)
        # A time comes when all times together are likelier than any one token of text.
        any_time = jax.nn.logsumexp(jnp.where(time, logits_bv, -jnp.inf), axis=1)
        best_text = jnp.max(jnp.where(time, -jnp.inf, logits_bv), axis=1)
        return jnp.where((any_time > best_text)[:, None] & ~time, -jnp.inf, logits_bv)


@functools.partial(jax.jit, static_argnames=('module', 'rules', 'max_tokens'))
def transcribe(
    module: nn.Module,
    params: Any,
    memory_bsd: jax.Array,
    prompt_bt: jax.Array,
    *,
    rules: TokenRules,
    max_tokens: int,
) -> tuple[jax.Array, jax.Array]:
    """Greedy decoding of encoded windows.

    Args:
      module: has ``decode``, ``empty_cache`` and ``one_by_one``, such as models.whisper.Whisper.
      params: its parameters.
      memory_bsd: the encoder's output, [b, s, d].
      prompt_bt: int32 [b, t], the task's tokens.
      rules: see TokenRules.
      max_tokens: where rows stop at the latest.

    Returns:
      (tokens int32 [b, max_tokens], count int32 [b]): the end is among the tokens, but not counted,
      and stands after it too.
    """
    batch, length = prompt_bt.shape
    outputs = module.apply(
        {'params': params},
        prompt_bt,
        None,
        memory_bsd,
        cache=module.empty_cache(batch, length + max_tokens - 1),
        logits_at_bn=jnp.full((batch, 1), length - 1),
        method='decode',
    )
    history = rules.start(batch)
    stepper, step_params = module, params
    if jax.default_backend() == 'cpu':  # elsewhere the second copy of the layers costs more
        stepper, step_params = module.one_by_one(params)

    def step(token_b, state):
        cache, history = state
        outputs = stepper.apply(
            {'params': step_params}, token_b[:, None], cache=cache, method='decode'
        )
        history = rules.append(history, token_b)
        return rules.apply(outputs['logits'][:, 0], history), (outputs['cache'], history)

    return greedy(
        step,
        rules.apply(outputs['logits'][:, 0], history),
        (outputs['cache'], history),
        max_tokens=max_tokens,
        stop_ids=(rules.end,),
        fill=rules.end,
    )


@functools.partial(jax.jit, static_argnames='module')
def next_logits(
    module: nn.Module, params: Any, memory_bsd: jax.Array, prompt_bt: jax.Array
) -> jax.Array:
    """float32 [b, vocabulary]: logits of the token after a prompt, without any rule."""
    last = jnp.full((prompt_bt.shape[0], 1), prompt_bt.shape[1] - 1)
    outputs = module.apply(
        {'params': params}, prompt_bt, None, memory_bsd, logits_at_bn=last, method='decode'
    )
    return outputs['logits'][:, 0]
