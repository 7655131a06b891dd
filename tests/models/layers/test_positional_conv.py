"""The split convolution against XLA's grouped one, its weight norm, and what it sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.layers.positional_conv import PositionalConv


@pytest.mark.parametrize('size', [6, 7])
def test_it_is_the_grouped_convolution(size):
    layer = PositionalConv(size, groups=3, activation='relu')
    x = jax.random.normal(jax.random.key(0), (2, 9, 12))
    params = jax.jit(layer.init)(jax.random.key(1), x)['params']
    v = params['kernel_v']
    # The start of g is the norm of v, so that the kernel starts as v.
    params = {**params, 'kernel_g': 3 * params['kernel_g'], 'bias': jnp.arange(12.0)}
    y = jax.jit(layer.apply)({'params': params}, x)
    want = jax.lax.conv_general_dilated(
        x,
        3 * v,
        (1,),
        [(size // 2, (size - 1) // 2)],
        dimension_numbers=('NHC', 'HIO', 'NHC'),
        feature_group_count=3,
    )
    np.testing.assert_allclose(y, jax.nn.relu(want + jnp.arange(12.0)), atol=1e-5)


def test_batch_norm_in_place_of_weight_norm():
    layer = PositionalConv(4, groups=2, batch_norm=True)
    x = jax.random.normal(jax.random.key(0), (1, 5, 4))
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    assert set(variables['params']) == {'bias', 'kernel', 'norm'}
    statistics = {'norm': {'mean': jnp.full(4, 2.0), 'var': jnp.full(4, 0.25)}}
    y = layer.apply({**variables, 'batch_stats': statistics}, x)
    plain = layer.apply(variables, (x - 2) / jnp.sqrt(0.25 + 1e-5) * jnp.sqrt(1 + 1e-5))
    np.testing.assert_allclose(y, plain, atol=1e-5)
