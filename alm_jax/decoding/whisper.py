"""Whisper's grammar: which tokens may follow which.

The rules are those of Radford et al. 2022 (https://arxiv.org/abs/2212.04356, section 4.5) as
OpenAI's code and transformers apply them (WhisperTimeStampLogitsProcessor, SuppressTokens*).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

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
