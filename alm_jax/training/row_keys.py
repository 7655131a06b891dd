"""Keys that give the rows of a micro-batch the draws that they have in the whole batch.

A key of ``of_micro_batch`` goes wherever a key goes: it is split and folded, and Dropout,
augmentation and SpecAugment draw with it unchanged. What it draws for its rows is bit for bit what
the key it came from draws for them when the batch is whole, so randomness depends neither on the
number of micro-batches nor on that of devices.

Threefry as JAX uses it hashes the position of an element in the array that is drawn (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"). These keys hash the position that the element
has in the draw of the whole batch instead.
"""

import functools
import math
from collections.abc import Hashable

import jax
import jax.extend
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p

THREEFRY = 'threefry2x32'


def of_micro_batch(key: jax.Array, index: jax.Array, rows: int, count: int) -> jax.Array:
    """The key of micro-batch ``index``, which has the rows index, index + count, ... of the batch.

    A draw counts as one of rows when its leading axis is ``rows`` or, from two axes on, a multiple
    of that, such as rows x windows. Any other, such as the frames that patchout keeps, is the same
    in every micro-batch, as it is for all rows of a whole batch.

    Args:
      key: one threefry key.
      index: int [], from 0 to below ``count``.
      rows: of one micro-batch.
      count: of micro-batches.

    Raises:
      ValueError: ``key`` is of another kind, whose draws cannot be addressed by row.
    """
    if str(jax.random.key_impl(key)) != THREEFRY:
        raise ValueError(
            f'micro-batches need keys of {THREEFRY}, not {jax.random.key_impl(key)}. Leave '
            'jax_default_prng_impl as it is.'
        )
    data = _with_index(jax.random.key_data(key), jnp.asarray(index, jnp.uint32))
    return jax.random.wrap_key_data(data, impl=_kind(rows, count))


@functools.cache
def _kind(rows: int, count: int) -> Hashable:
    """The kind of key; its data are the two words of threefry and the micro-batch."""

    def seed(number):
        return _with_index(jax.random.key_data(jax.random.key(number, impl=THREEFRY)), 0)

    def split(data, shape):
        return _with_index(jax.random.key_data(jax.random.split(_threefry(data), shape)), data[2])

    def fold_in(data, number):
        return _with_index(
            jax.random.key_data(jax.random.fold_in(_threefry(data), number)), data[2]
        )

    def random_bits(data, width, shape):
        dtype = jnp.dtype(f'uint{width}')
        of_rows = shape and (shape[0] == rows or (len(shape) > 1 and shape[0] % rows == 0))
        if not of_rows:
            return jax.random.bits(_threefry(data), shape, dtype)
        if width > 32:
            raise NotImplementedError(f'draws of rows have at most 32 bits, not {width}.')
        high, low = _positions(shape, rows, count, data[2])
        one, other = threefry2x32_p.bind(data[0], data[1], high, low)
        return (one ^ other).astype(dtype)

    return jax.extend.random.define_prng_impl(
        key_shape=(3,),
        seed=seed,
        split=split,
        random_bits=random_bits,
        fold_in=fold_in,
        name=f'rows_{rows}_of_{count}',
        tag=f'rows_{rows}_of_{count}',
    )


def _threefry(data):
    return jax.random.wrap_key_data(data[:2], impl=THREEFRY)


def _with_index(words, index):
    """[..., 2] -> [..., 3]."""
    index = jnp.broadcast_to(jnp.asarray(index, jnp.uint32), (*words.shape[:-1], 1))
    return jnp.concatenate([words, index], axis=-1)


def _positions(shape, rows, count, index):
    """uint32 (high, low) of the 64-bit position of each element in the draw of the whole batch."""
    parts = shape[0] // rows
    here = jax.lax.iota(jnp.uint32, shape[0])
    leading = (here // parts * count + index) * parts + here % parts
    words = _product(leading, math.prod(shape[1:]))
    high, low = (word.reshape(-1, *(1 for _ in shape[1:])) for word in words)
    within = jnp.zeros_like(low[:1])
    for axis in range(1, len(shape)):  # elementwise, so that any axis can be sharded
        stride = jnp.uint32(math.prod(shape[axis + 1 :]))
        own = tuple(n if i == axis else 1 for i, n in enumerate(shape))
        within += stride * jax.lax.broadcasted_iota(jnp.uint32, own, axis)
    low = low + within
    return high + (low < within), low


def _product(x, y):
    """uint32 (high, low) of x y, uint32 [n] times an int below 2 ** 32.

    By halves: lax.mulhi cannot be lowered where its operands are sharded.
    """
    x_high, x_low = x >> 16, x & 0xFFFF
    y_high, y_low = jnp.uint32(y >> 16), jnp.uint32(y & 0xFFFF)
    middle = x_high * y_low + (x_low * y_low >> 16)
    other = x_low * y_high + (middle & 0xFFFF)
    return x_high * y_high + (middle >> 16) + (other >> 16), x * jnp.uint32(y)
