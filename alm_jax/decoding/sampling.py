"""How the next token is chosen: the likeliest one, or at random among those that filters leave."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.config import ConfigError

Numbers = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Transformers' filters under their names there, in their order: penalty first, top_p last.

    Attributes:
      temperature: logits are divided by it; 0 takes the likeliest token, and the two filters that
        follow change nothing.
      top_k: tokens at least as likely as the k-th likeliest are kept; 0 is all.
      top_p: the likeliest tokens are kept whose probabilities reach this sum (nucleus sampling,
        Holtzman et al. 2020, https://arxiv.org/abs/1904.09751); 1 is all.
      repetition_penalty: logits of tokens that prompt or text have are divided by it where
        positive, else multiplied (Keskar et al. 2019, https://arxiv.org/abs/1909.05858); 1 is none.
      min_tokens: no stop token comes before so many others.
      seed: of the random choice, one for all rows or one a row. With it and its prompt a row's text
        is told, whatever other rows there are: rows of the same prompt need seeds of their own.

    Raises:
      ConfigError: a number outside of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    seed: int | tuple[int, ...] = 0

    def __post_init__(self):
        for name, good, bounds in (
            ('temperature', self.temperature >= 0, '0 or more'),
            ('top_k', self.top_k >= 0, '0 or more'),
            ('top_p', 0 < self.top_p <= 1, 'above 0, and 1 at most'),
            ('repetition_penalty', self.repetition_penalty > 0, 'above 0'),
            ('min_tokens', self.min_tokens >= 0, '0 or more'),
        ):
            if not good:
                raise ConfigError(f'sampling.{name} is {getattr(self, name)}; it is {bounds}.')

    def numbers(self, rows: int) -> Numbers:
        """What the functions below take: arrays of the filters that are on, and no others.

        Programs are compiled for which these are, not for their values.

        Raises:
          ConfigError: as many seeds as there are no rows.
        """
        found = {}
        if self.repetition_penalty != 1:
            found['repetition_penalty'] = np.float32(self.repetition_penalty)
        if self.min_tokens:
            found['min_tokens'] = np.int32(self.min_tokens)
        if self.temperature == 0:
            return found
        found['temperature'] = np.float32(self.temperature)
        if self.top_k:
            found['top_k'] = np.float32(self.top_k)
        if self.top_p < 1:
            found['top_p'] = np.float32(self.top_p)
        seeds = np.atleast_1d(np.asarray(self.seed, np.uint32))
        if len(seeds) not in (1, rows):
            raise ConfigError(f'sampling.seed has {len(seeds)} numbers for {rows} rows.')
        return {**found, 'seed': np.broadcast_to(seeds, rows)}


def constrain(logits_bv, numbers: Numbers, stops, count, seen_bv=None):
    """Logits with repetition penalty, and without stop tokens where it is too early for them.

    Args:
      logits_bv: float32 [b, vocabulary], or log-probabilities.
      numbers: of ``Sampling``.
      stops: int32 [n], the stop tokens.
      count: int32 [], tokens so far.
      seen_bv: bool [b, vocabulary], tokens of prompt and text; needed for the penalty.
    """
    if 'repetition_penalty' in numbers:
        penalty = numbers['repetition_penalty']
        penalised = jnp.where(logits_bv < 0, logits_bv * penalty, logits_bv / penalty)
        logits_bv = jnp.where(seen_bv, penalised, logits_bv)
    if 'min_tokens' in numbers:
        early = logits_bv.at[:, stops].set(-jnp.inf)
        logits_bv = jnp.where(count < numbers['min_tokens'], early, logits_bv)
    return logits_bv


def warp(logits_bv, numbers: Numbers):
    """Logits divided by the temperature, with -inf for what top_k and top_p leave out.

    Tokens of equal logits are kept or left out together.
    """
    logits_bv = logits_bv / numbers['temperature']
    if 'top_k' in numbers:
        logits_bv = _keep(logits_bv, jnp.ones_like(logits_bv), numbers['top_k'])
    if 'top_p' in numbers:
        logits_bv = _keep(logits_bv, jax.nn.softmax(logits_bv), numbers['top_p'])
    return logits_bv


def choose(logits_bv, numbers: Numbers, count):
    """int32 [b]: the next token after ``count`` others.

    A row's random numbers are made of its own seed and ``count`` alone.
    """
    if 'temperature' not in numbers:
        return jnp.argmax(logits_bv, axis=-1).astype(jnp.int32)

    def one(seed, logits_v):
        key = jax.random.fold_in(jax.random.key(seed), count)
        return jax.random.categorical(key, logits_v)

    return jax.vmap(one)(numbers['seed'], warp(logits_bv, numbers)).astype(jnp.int32)


def _keep(logits_bv, weights_bv, limit):
    """-inf for every token above which there are weights of ``limit`` or more.

    The least logit that is kept is found by halving the float32s between the largest and the least
    one there is: 32 sums, which take a fraction of the time of sorting a vocabulary.
    """
    bits = jax.lax.bitcast_convert_type(logits_bv.astype(jnp.float32), jnp.int32)
    order_bv = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers in the order of the floats

    def halve(_, bounds):
        out, kept = bounds
        middle = (out & kept) + ((out ^ kept) >> 1)
        above = jnp.sum(jnp.where(order_bv > middle[:, None], weights_bv, 0), axis=1)
        fits = above < limit
        return jnp.where(fits, out, middle), jnp.where(fits, middle, kept)

    kept = jnp.max(order_bv, axis=1)
    out = jnp.full_like(kept, jnp.iinfo(jnp.int32).min)
    _, kept = jax.lax.fori_loop(0, 32, halve, (out, kept))
    return jnp.where(order_bv >= kept[:, None], logits_bv, -jnp.inf)
