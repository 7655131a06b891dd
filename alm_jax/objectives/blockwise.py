"""The contrastive objectives without their b x b matrix: by chunks of rows, or around a ring.

Each equals its dense form in ``contrastive`` in value and gradient; a custom gradient computes the
blocks of logits again, so that neither pass ever holds more than one.

- ``chunked``: every device gathers all texts and goes through its own audio rows ``chunk`` at a
  time. A block is chunk x b; beside it there are the gathered embeddings and their gradient.
- ``ring``: texts travel from device to device together with what their columns have seen so far (in
  the backward pass with their gradient) and are at home again after as many hops as there are
  devices. A block is chunk x b / devices, and no device ever holds all embeddings.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from alm_jax.objectives.pairs import SIGMOID, SOFTMAX, Pairs, joined, joined_over, nothing

FORMS = ('chunked', 'ring')


class Rows(NamedTuple):
    """One side of the pairs: embeddings [r, d] and the groups of their records [r]."""

    z: jax.Array
    audio_group: jax.Array
    text_group: jax.Array


def multi_positive(
    za: jax.Array,
    zt: jax.Array,
    scale: jax.Array,
    audio_group: jax.Array,
    text_group: jax.Array,
    *,
    form: str,
    chunk: int,
    mesh: Mesh | None = None,
    axes: Sequence[str] = ('data',),
) -> jax.Array:
    """``contrastive.multi_positive``; ``contrastive.infonce`` when all groups differ.

    Args:
      za, zt, scale, audio_group, text_group: as there, for the global batch.
      form: 'chunked' or 'ring'.
      chunk: rows of a block; it need not divide the rows of a device.
      mesh: that the rows are sharded over; None is one device.
      axes: of the mesh, that the rows are sharded over.

    Returns:
      float32 scalar.
    """
    rows = (jnp.asarray(za), jnp.asarray(zt), audio_group, text_group)
    return _objective(SOFTMAX, form, chunk, mesh, tuple(axes))(*rows, scale, 0.0)


def sigmoid(
    za: jax.Array,
    zt: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    audio_group: jax.Array,
    text_group: jax.Array,
    *,
    form: str,
    chunk: int,
    mesh: Mesh | None = None,
    axes: Sequence[str] = ('data',),
) -> jax.Array:
    """``contrastive.sigmoid``; the other arguments as in ``multi_positive``."""
    rows = (jnp.asarray(za), jnp.asarray(zt), audio_group, text_group)
    return _objective(SIGMOID, form, chunk, mesh, tuple(axes))(*rows, scale, bias)


def _over_chunks(step: Callable, carry: Any, rows: Any, chunk: int) -> tuple[Any, Any]:
    """``step(carry, rows) -> (carry, results)`` by ``chunk`` rows, the last fewer."""
    count = jax.tree.leaves(rows)[0].shape[0]
    chunk = min(chunk, count)
    whole = count // chunk * chunk
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), rows)
    carry, results = jax.lax.scan(step, carry, chunks)
    results = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), results)
    if whole < count:
        carry, last = step(carry, jax.tree.map(lambda x: x[whole:], rows))
        results = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), results, last)
    return carry, results


def _block(rows: Rows, columns: Rows, scale, bias) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(cosines, logits, positive) of every row with every column."""
    cosine = _dot(rows.z, columns.z.T)
    positive = (rows.audio_group[:, None] == columns.audio_group) | (
        rows.text_group[:, None] == columns.text_group
    )
    return cosine, scale * cosine + bias, positive


def _dot(x, y):
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def _look(pairs, chunk, rows, row_stats, columns, column_stats, scale, bias):
    """(stats of rows, of columns) after these rows have met these columns."""

    def step(column_stats, part):
        rows, row_stats = part
        _, logits, positive = _block(rows, columns, scale, bias)
        row_stats = joined(row_stats, pairs.stats(logits, positive, 1))
        return joined(column_stats, pairs.stats(logits, positive, 0)), row_stats

    column_stats, row_stats = _over_chunks(step, column_stats, (rows, row_stats), chunk)
    return row_stats, column_stats


def _pull(pairs, chunk, rows, row_stats, columns, column_stats, scale, bias):
    """b times the gradients of (rows' z, columns' z, scale, bias) from these pairs."""

    def step(sums, part):
        rows, row_stats = part
        dcolumns, dscale, dbias = sums
        cosine, logits, positive = _block(rows, columns, scale, bias)
        slope = pairs.slope(logits, positive, row_stats, column_stats)
        sums = (
            dcolumns + scale * _dot(slope.T, rows.z),
            dscale + jnp.sum(slope * cosine),
            dbias + jnp.sum(slope),
        )
        return sums, scale * _dot(slope, columns.z)

    zero = jnp.zeros((), jnp.float32)
    start = (jnp.zeros(columns.z.shape, jnp.float32), zero, zero)
    (dcolumns, dscale, dbias), drows = _over_chunks(step, start, (rows, row_stats), chunk)
    return drows, dcolumns, dscale, dbias


def _forward_chunked(pairs, chunk, axes, rows, columns, scale, bias):
    here = len(columns.z)
    everywhere = _gathered(columns, axes)
    start = nothing(len(rows.z)), everywhere, nothing(len(everywhere.z))
    row_stats, column_stats = _look(pairs, chunk, rows, *start, scale, bias)
    if axes:
        column_stats = joined_over(column_stats, axes)
        start = jax.lax.axis_index(axes) * here
        column_stats = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start, here), column_stats
        )
    return row_stats, column_stats


def _backward_chunked(pairs, chunk, axes, rows, row_stats, columns, column_stats, scale, bias):
    columns, column_stats = _gathered((columns, column_stats), axes)
    drows, dcolumns, *sums = _pull(
        pairs, chunk, rows, row_stats, columns, column_stats, scale, bias
    )
    if axes:
        dcolumns = jax.lax.psum_scatter(dcolumns, axes, tiled=True)
    return drows, dcolumns, *sums


def _forward_ring(pairs, chunk, axes, rows, columns, scale, bias):
    def hop(_, carry):
        row_stats, columns, column_stats = carry
        row_stats, column_stats = _look(
            pairs, chunk, rows, row_stats, columns, column_stats, scale, bias
        )
        return row_stats, *_passed_on((columns, column_stats), axes)

    start = (nothing(len(rows.z)), columns, nothing(len(columns.z)))
    row_stats, _, column_stats = _hops(hop, start, axes)
    return row_stats, column_stats


def _backward_ring(pairs, chunk, axes, rows, row_stats, columns, column_stats, scale, bias):
    def hop(_, carry):
        sums, columns, column_stats, dcolumns = carry
        drows, d, dscale, dbias = _pull(
            pairs, chunk, rows, row_stats, columns, column_stats, scale, bias
        )
        sums = jax.tree.map(jnp.add, sums, (drows, dscale, dbias))
        return sums, *_passed_on((columns, column_stats, dcolumns + d), axes)

    zero = jnp.zeros((), jnp.float32)
    sums = (jnp.zeros(rows.z.shape, jnp.float32), zero, zero)
    start = (sums, columns, column_stats, jnp.zeros(columns.z.shape, jnp.float32))
    (drows, dscale, dbias), _, _, dcolumns = _hops(hop, start, axes)
    return drows, dcolumns, dscale, dbias


def _hops(hop, start, axes):
    return jax.lax.fori_loop(0, jax.lax.axis_size(axes) if axes else 1, hop, start)


def _gathered(tree, axes):
    return jax.lax.all_gather(tree, axes, tiled=True) if axes else tree


def _passed_on(tree, axes):
    if not axes:
        return tree
    size = jax.lax.axis_size(axes)
    return jax.lax.ppermute(tree, axes, [(i, (i + 1) % size) for i in range(size)])


_PASSES = {
    'chunked': (_forward_chunked, _backward_chunked),
    'ring': (_forward_ring, _backward_ring),
}


@functools.cache
def _objective(pairs: Pairs, form: str, chunk: int, mesh: Mesh | None, axes: tuple[str, ...]):
    """(za, zt, audio_group, text_group, scale, bias) -> scalar, with its own gradient."""
    axes = axes if mesh is not None else ()
    forward_pass, backward_pass = _PASSES[form]
    split, whole = PartitionSpec(axes), PartitionSpec()
    devices = math.prod(mesh.shape[axis] for axis in axes) if axes else 1

    def sharded(function, inputs, outputs):
        if mesh is None:
            return function
        return jax.shard_map(
            function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False
        )

    def summed(x):
        return jax.lax.psum(x, axes) if axes else x

    def forward_local(za, zt, audio_group, text_group, scale, bias):
        rows, columns = Rows(za, audio_group, text_group), Rows(zt, audio_group, text_group)
        stats = forward_pass(pairs, chunk, axes, rows, columns, scale, bias)
        loss = summed(pairs.loss(*stats)) / (len(za) * devices)
        return loss, stats

    def backward_local(za, zt, audio_group, text_group, scale, bias, row_stats, column_stats):
        rows, columns = Rows(za, audio_group, text_group), Rows(zt, audio_group, text_group)
        drows, dcolumns, *sums = backward_pass(
            pairs, chunk, axes, rows, row_stats, columns, column_stats, scale, bias
        )
        b = len(za) * devices
        return (drows / b, dcolumns / b, *(summed(x) / b for x in sums))

    inputs = (split, split, split, split, whole, whole)
    forward_all = sharded(forward_local, inputs, (whole, split))
    backward_all = sharded(backward_local, (*inputs, split, split), (split, split, whole, whole))

    @jax.custom_vjp
    def loss(*arguments):
        return forward_all(*arguments)[0]

    def forward(*arguments):
        value, stats = forward_all(*arguments)
        return value, (arguments, stats)

    def backward(kept, cotangent):
        (za, zt, audio_group, text_group, scale, bias), stats = kept
        # Sigmoid's slopes need no statistics. Without this zero of them the texts are gathered for
        # this pass while the one before still holds its own.
        after = zt + (0 * stats[0].total[:, None]).astype(zt.dtype)
        gradients = backward_all(za, after, audio_group, text_group, scale, bias, *stats)
        dza, dzt, dscale, dbias = (
            (cotangent * g).astype(x.dtype) for g, x in zip(gradients, (za, zt, scale, bias))
        )
        return dza, dzt, None, None, dscale, dbias

    loss.defvjp(forward, backward)

    def objective(za, zt, audio_group, text_group, scale, bias):
        scalars = (jnp.asarray(x, jnp.float32) for x in (scale, bias))
        return loss(za, zt, jnp.asarray(audio_group), jnp.asarray(text_group), *scalars)

    return objective
