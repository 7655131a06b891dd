"""Depthwise 3 x 3 convolution written as nine shifted multiply-adds.

XLA runs a grouped convolution 10 to 40 times slower on CPU than this form, and the gradients that
autodiff derives for the shifted slices (sums of nine padded arrays) are slow as well, hence the
explicit backward pass. Values and gradients equal lax.conv_general_dilated with
feature_group_count = channels (a test compares them).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

SIZE = 3


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x_bhwc, kernel_hw1c, stride: int):
    """3 x 3 depthwise convolution with TensorFlow's SAME padding.

    Args:
      x_bhwc: [b, h, w, c].
      kernel_hw1c: [3, 3, 1, c], the HWIO layout of a convolution with c groups.
      stride: of both axes.

    Returns:
      [b, ceil(h / stride), ceil(w / stride), c].
    """
    height, width = x_bhwc.shape[1:3]
    padded = _pad(x_bhwc, stride)
    return _correlate(padded, kernel_hw1c, stride, -(-height // stride), -(-width // stride))


def _same(size, stride):
    return lax.padtype_to_pads((size,), (SIZE,), (stride,), 'SAME')[0]


def _pad(x, stride):
    return jnp.pad(x, ((0, 0), _same(x.shape[1], stride), _same(x.shape[2], stride), (0, 0)))


def _shifts(x, stride, height, width):
    """Each kernel position (i, j) with the slice of the padded input that it multiplies."""
    for i in range(SIZE):
        for j in range(SIZE):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            columns = slice(j, j + (width - 1) * stride + 1, stride)
            yield i, j, x[:, rows, columns]


def _correlate(padded, kernel, stride, height, width):
    return sum(kernel[i, j, 0] * x for i, j, x in _shifts(padded, stride, height, width))


def _forward(x, kernel, stride):
    return depthwise_conv(x, kernel, stride), (x, kernel)


def _backward(stride, saved, dy):
    x, kernel = saved
    shifts = _shifts(_pad(x, stride), stride, *dy.shape[1:3])
    dkernel = jnp.stack([jnp.sum(shifted * dy, axis=(0, 1, 2)) for _, _, shifted in shifts])

    # The gradient of the input: dy spread out by the stride, under the flipped kernel.
    def edges(size, out):
        low, _ = _same(size, stride)
        return SIZE - 1 - low, size + low - ((out - 1) * stride + 1), stride - 1

    none = (0, 0, 0)
    pads = (none, *(edges(x.shape[axis], dy.shape[axis]) for axis in (1, 2)), none)
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), pads)
    spread = lax.optimization_barrier(spread)  # or XLA fuses nine pads into the loop, slowly
    dx = _correlate(spread, kernel[::-1, ::-1], 1, *x.shape[1:3])
    return dx, dkernel.reshape(kernel.shape)


depthwise_conv.defvjp(_forward, _backward)
