"""Analytic FLOPs against the formulas of the field, and against XLA's own analysis."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from alm_jax.models.layers.transformer import transformer_stack
from alm_jax.training.perf import hlo_costs, model_flops

ROWS, IN, HIDDEN, OUT = 16, 32, 64, 128
X = jax.ShapeDtypeStruct((ROWS, IN), jnp.float32)
FIRST = jax.ShapeDtypeStruct((IN, HIDDEN), jnp.float32)
SECOND = jax.ShapeDtypeStruct((HIDDEN, OUT), jnp.float32)
N_FIRST, N_SECOND = IN * HIDDEN, HIDDEN * OUT


def loss(trained, frozen, x):
    weights = {**trained, **frozen}
    return jnp.sum((jnp.tanh(x @ weights['first']) @ weights['second']) ** 2)


@pytest.mark.parametrize(
    ('trained', 'flops'),
    [
        # The first layer's input needs no gradient, which saves 2 N of the 6.
        ({'first', 'second'}, ROWS * (4 * N_FIRST + 6 * N_SECOND)),
        ({'first'}, ROWS * (4 * N_FIRST + 4 * N_SECOND)),  # a frozen layer passes gradients on
        ({'second'}, ROWS * (2 * N_FIRST + 4 * N_SECOND)),
        (set(), ROWS * (2 * N_FIRST + 2 * N_SECOND)),
    ],
)
def test_trained_frozen_and_passed_through_weights(trained, flops):
    weights = {'first': FIRST, 'second': SECOND}
    parts = [{k: w for k, w in weights.items() if (k in trained) == own} for own in (True, False)]
    assert model_flops.count(loss, *parts, X).model == flops
    if trained:
        gradient = jax.jit(jax.value_and_grad(loss))
        compiled = gradient.lower(*parts, X).compile()
        assert hlo_costs.costs(compiled.as_text()).flops == flops


class Stack(nn.Module):
    remat: str = 'none'
    unrolled: bool = False

    @nn.compact
    def __call__(self, x_btd):
        options = {'remat': self.remat, 'unrolled': self.unrolled}
        return transformer_stack(2, heads=4, mlp_width=1024, **options)(x_btd)[0]


@pytest.mark.parametrize('remat', ['none', 'block'])
def test_a_transformer_is_six_n_and_its_attention_whatever_is_recomputed(remat):
    b, t, d, layers = 2, 64, 256, 2
    flops, *_ = stack_flops(Stack(remat), b, t, d)
    assert flops == 6 * layers * 12 * d * d * b * t + 12 * layers * t * t * d * b


def test_xla_counts_the_same_within_five_per_cent():
    # Short attention: longer one computes its scores twice on CPUs.
    flops, loss, params, x = stack_flops(Stack(unrolled=True), 2, 48, 256)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, {}, x).compile()
    assert flops == pytest.approx(compiled.cost_analysis()['flops'], rel=0.05)
    assert flops == pytest.approx(hlo_costs.costs(compiled.as_text()).flops, rel=1e-6)


def stack_flops(module, b, t, d):
    x = jax.ShapeDtypeStruct((b, t, d), jnp.float32)
    params = jax.eval_shape(module.init, jax.eval_shape(lambda: jax.random.key(0)), x)['params']

    def loss(params, frozen, x):
        return jnp.sum(module.apply({'params': params}, x) ** 2)

    found = model_flops.count(loss, params, {}, x)
    assert found.front_end == 0
    assert not found.uncounted
    return found.model, loss, params, x


def test_what_sees_no_parameter_is_the_front_end_and_what_a_gradient_is_kept_from_costs_less():
    def loss(trained, frozen, x):
        bank = jnp.ones((IN, IN)).astype(x.dtype)
        hidden = lax.stop_gradient((x @ bank) @ frozen['first'] * jnp.mean(trained['second']))
        return jnp.sum(hidden @ trained['second'])

    found = model_flops.count(loss, {'second': SECOND}, {'first': FIRST}, X)
    assert found.front_end == 2 * ROWS * IN * IN
    assert found.model == ROWS * (2 * N_FIRST + 4 * N_SECOND)


def test_a_convolution_and_the_dearer_branch_and_a_loop_that_mixes_its_values():
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 8), jnp.float32)
    x = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)

    def convolution(trained, frozen, x):
        numbers = ('NHWC', 'HWIO', 'NHWC')
        return jnp.sum(
            lax.conv_general_dilated(x, trained, (2, 2), 'SAME', dimension_numbers=numbers)
        )

    # Of the 4 x 3 taps along an axis one meets padding.
    assert model_flops.count(convolution, kernel, {}, x).model == 2 * 2 * (2 * 11 * 11 * 8) * 4

    square = jax.ShapeDtypeStruct((IN, IN), jnp.float32)

    def branches(trained, frozen, x):
        return jnp.sum(lax.cond(x[0, 0] > 0, lambda: x @ trained @ trained, lambda: x @ trained))

    product = 2 * ROWS * IN * IN
    assert model_flops.count(branches, square, {}, X).model == product * (2 + 3)

    def loop(trained, frozen, x):  # what the first round makes of a parameter, the second reads
        def layer(carry, _):
            hidden, kernel = carry
            return (hidden @ kernel, trained), None

        return jnp.sum(lax.scan(layer, (x, jnp.ones((IN, IN))), length=5)[0][0])

    assert model_flops.count(loop, square, {}, X).model == 5 * 3 * product


def test_shards_are_counted_once_for_each_part_of_the_batch():
    mesh = jax.sharding.AbstractMesh((4, 2), ('data', 'tensor'), axis_types=(AxisType.Auto,) * 2)

    def sharded(trained, frozen, x):
        def local(x, kernel):
            return x @ kernel

        rows = P('data')
        return jnp.sum(
            jax.shard_map(local, mesh=mesh, in_specs=(rows, P()), out_specs=rows)(x, trained)
        )

    assert model_flops.count(sharded, FIRST, {}, X).model == 4 * ROWS * N_FIRST
