"""The shifted depthwise convolution equals XLA's grouped one, values and gradients."""

import functools

import jax
import numpy as np
import pytest
from jax import lax

from alm_jax.models.layers.depthwise import depthwise_conv


def _grouped(x, kernel, stride):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize(
    ('height', 'width', 'stride'), [(48, 32, 2), (6, 4, 1), (7, 5, 2), (1, 2, 2), (1, 1, 1)]
)
def test_equals_grouped_convolution(height, width, stride):
    """Even and odd sizes pad differently at stride 2; the smallest are all border."""
    channels = 3
    keys = jax.random.split(jax.random.key(height * 100 + width * 10 + stride), 3)
    x = jax.random.normal(keys[0], (2, height, width, channels))
    kernel = jax.random.normal(keys[1], (3, 3, 1, channels))
    shape = (2, -(-height // stride), -(-width // stride), channels)
    cotangent = jax.random.normal(keys[2], shape)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(function, x, kernel):
        y, vjp = jax.vjp(lambda *a: function(*a, stride), x, kernel)
        return y, *vjp(cotangent)

    want = value_and_gradients(_grouped, x, kernel)
    for ours, theirs in zip(value_and_gradients(depthwise_conv, x, kernel), want):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
