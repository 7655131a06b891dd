"""Contrastive objectives as sums over pairs, so that they can be computed block by block.

A block of logits gives each of its rows and columns Stats, which add up over blocks; with the
stats of whole rows and columns, a block gives its part of the gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Stats(NamedTuple):
    """What a row, or a column, has seen of its logits so far; float32 [r] each.

    Attributes:
      peak: the largest logit.
      mass: sum of exp(logit - peak).
      total: sum of the logits of its positives.
      count: of its positives.
    """

    peak: jax.Array
    mass: jax.Array
    total: jax.Array
    count: jax.Array

    @property
    def log_z(self) -> jax.Array:
        """The logarithm of the softmax's denominator."""
        return self.peak + jnp.log(self.mass)


class Pairs(NamedTuple):
    """An objective as sums over pairs.

    Attributes:
      stats: (logits [r, c], positive [r, c], axis) -> Stats summed over an axis.
      loss: (stats of rows, stats of columns) -> sum of the losses of these rows and columns; the
        objective is the sum over all, divided by b.
      slope: (logits, positive, stats of rows [r], of columns [c]) -> b times the gradient of the
        objective with respect to the logits, [r, c].
    """

    stats: Callable[[jax.Array, jax.Array, int], Stats]
    loss: Callable[[Stats, Stats], jax.Array]
    slope: Callable[[jax.Array, jax.Array, Stats, Stats], jax.Array]


def _softmax_stats(logits, positive, axis):
    peak = jnp.max(logits, axis=axis)
    return Stats(
        peak=peak,
        mass=jnp.sum(jnp.exp(logits - jnp.expand_dims(peak, axis)), axis=axis),
        total=jnp.sum(jnp.where(positive, logits, 0.0), axis=axis),
        count=jnp.sum(positive, axis=axis, dtype=jnp.float32),
    )


def _softmax_loss(rows, columns):
    return sum(jnp.sum(side.log_z - side.total / side.count) for side in (rows, columns)) / 2


def _softmax_slope(logits, positive, rows, columns):
    def one_way(stats):
        return jnp.exp(logits - stats.log_z) - jnp.where(positive, 1 / stats.count, 0.0)

    down = jax.tree.map(lambda x: x[:, None], rows)
    return (one_way(down) + one_way(columns)) / 2


def _sigmoid_stats(logits, positive, axis):
    """Only ``total`` is used: the sum of the losses of the pairs."""
    losses = jax.nn.softplus(jnp.where(positive, -logits, logits))
    nothing = jnp.zeros(logits.shape[1 - axis], jnp.float32)
    return Stats(nothing, nothing, jnp.sum(losses, axis=axis), nothing)


def _sigmoid_loss(rows, columns):
    del columns  # the same pairs once more
    return jnp.sum(rows.total)


def _sigmoid_slope(logits, positive, rows, columns):
    del rows, columns
    return jax.nn.sigmoid(logits) - positive


SOFTMAX = Pairs(_softmax_stats, _softmax_loss, _softmax_slope)
SIGMOID = Pairs(_sigmoid_stats, _sigmoid_loss, _sigmoid_slope)


def nothing(rows: int) -> Stats:
    """Of no logits."""
    zeros = jnp.zeros(rows, jnp.float32)
    return Stats(jnp.full(rows, -jnp.inf), zeros, zeros, zeros)


def joined(a: Stats, b: Stats) -> Stats:
    """Of disjoint sets of logits."""
    peak = jnp.maximum(a.peak, b.peak)
    return Stats(
        peak,
        a.mass * jnp.exp(a.peak - peak) + b.mass * jnp.exp(b.peak - peak),
        a.total + b.total,
        a.count + b.count,
    )


def joined_over(stats: Stats, axes: tuple[str, ...]) -> Stats:
    """Of the sets of all devices along mesh axes, inside ``shard_map``."""
    peak = jax.lax.pmax(stats.peak, axes)
    mass, total, count = jax.lax.psum(
        (stats.mass * jnp.exp(stats.peak - peak), stats.total, stats.count), axes
    )
    return Stats(peak, mass, total, count)
