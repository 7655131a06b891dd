"""Costs read from HLO text: loops, shards, convolutions and what a fusion touches of a stack."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax

from alm_jax.models.layers.transformer import transformer_stack, unroll
from alm_jax.training.perf import hlo_costs

SCRIPT = pathlib.Path(__file__).with_name('sharded_costs.py')
DEPTH = 12


class Stack(nn.Module):
    depth: int
    unrolled: bool = False

    @nn.compact
    def __call__(self, x_btd):
        return transformer_stack(self.depth, heads=2, mlp_width=64, unrolled=self.unrolled)(x_btd)[
            0
        ]


def costs_of(function, *arguments):
    return hlo_costs.costs(jax.jit(function).lower(*arguments).compile().as_text())


def test_scanned_layers_cost_what_unrolled_ones_do():
    x = jax.ShapeDtypeStruct((2, 8, 32), jnp.float32)
    rng = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(Stack(DEPTH).init, rng, x)['params']
    found = {}
    for unrolled in (False, True):
        module = Stack(DEPTH, unrolled)
        tree = jax.eval_shape(unroll, params) if unrolled else params
        found[unrolled] = costs_of(
            jax.grad(lambda p, x, m=module: jnp.sum(m.apply({'params': p}, x) ** 2)), tree, x
        )
    scanned, plain = found[False], found[True]
    assert not scanned.uncounted
    # 6 N for each position and 12 l t^2 d for each row: layers of 8 d^2 weights, all trained.
    assert plain.flops == 6 * DEPTH * 8 * 32**2 * 16 + 12 * DEPTH * 8**2 * 32 * 2
    assert scanned.flops == pytest.approx(plain.flops, rel=0.05)
    # The stack of layers is not read once a layer, which would be twelve times as much.
    assert plain.bytes / 2 < scanned.bytes < 2 * plain.bytes


def test_shards_times_devices_cost_what_the_whole_does():
    flags = '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    whole = found['whole']['flops']
    assert 8 * found['data']['flops'] == pytest.approx(whole, rel=0.05)
    assert 8 * found['tensor']['flops'] == pytest.approx(whole, rel=0.05)
    assert found['whole']['collectives'] == []
    # The sum over columns of each of six layers, inside the loop, and what its gradient needs.
    (reduced,) = (c for c in found['tensor']['collectives'] if c['kind'] == 'all-reduce')
    assert reduced['count'] % 6 in (0, 1)
    assert reduced['count'] >= 6
    assert reduced['bytes'] >= 6 * 64 * 128 * 4
    # Data parallelism reduces every gradient once: 6 layers of two kernels.
    (reduced,) = (c for c in found['data']['collectives'] if c['kind'] == 'all-reduce')
    assert reduced['bytes'] == pytest.approx(6 * 2 * 128 * 256 * 4, rel=0.01)


@pytest.mark.parametrize('stride', [1, 2])
def test_a_convolution_counts_what_meets_the_input(stride):
    x = jax.ShapeDtypeStruct((2, 9, 12, 4), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 8), jnp.float32)

    def convolve(x, kernel):
        numbers = ('NHWC', 'HWIO', 'NHWC')
        return lax.conv_general_dilated(x, kernel, (stride,) * 2, 'SAME', dimension_numbers=numbers)

    pads = [lax.padtype_to_pads((size,), (3,), (stride,), 'SAME')[0] for size in (9, 12)]
    met = 1
    for size, (before, _) in zip((9, 12), pads):
        places = [i * stride + k - before for i in range(-(-size // stride)) for k in range(3)]
        met *= sum(0 <= place < size for place in places)
    compiled = jax.jit(convolve).lower(x, kernel).compile()
    found = hlo_costs.costs(compiled.as_text())
    assert found.flops == 2 * 2 * 4 * 8 * met
    assert found.flops == pytest.approx(compiled.cost_analysis()['flops'], rel=0.01)


PAIRS = """HloModule pairs, is_scheduled=true, num_partitions=8

%wrapped (p: f32[128]) -> f32[1024] {
  %p = f32[128]{0} parameter(0)
  ROOT %ag = f32[1024]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
}

%body (c: (s32[], f32[64,64])) -> (s32[], f32[64,64]) {
  %c = (s32[], f32[64,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %x = f32[64,64]{1,0} get-tuple-element(%c), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %start = (f32[64,64], f32[64,64]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  %y = f32[64,64]{1,0:S(1)} dot(%x, %x), lhs_contracting_dims={1}
  %done = f32[64,64]{1,0} collective-permute-done(%start)
  ROOT %t = (s32[], f32[64,64]{1,0}) tuple(%next, %done)
}

%condition (c: (s32[], f32[64,64])) -> pred[] {
  %c = (s32[], f32[64,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %end = s32[] constant(7)
  ROOT %less = pred[] compare(%i, %end), direction=LT
}

ENTRY %main (a: f32[64,64], b: f32[128]) -> f32[1024] {
  %a = f32[64,64]{1,0} parameter(0)
  %b = f32[128]{0} parameter(1)
  %zero = s32[] constant(0)
  %t = (s32[], f32[64,64]{1,0}) tuple(%zero, %a)
  %loop = (s32[], f32[64,64]{1,0}) while(%t), condition=%condition, body=%body
  %s = ((f32[128]{0}), f32[1024]{0}) async-start(%b), calls=%wrapped
  %m = f32[64,64]{1,0} all-reduce(%a), replica_groups=mesh['x'=2,'y'=4] {'y'}, to_apply=%add
  ROOT %d = f32[1024]{0} async-done(%s)
}
"""


def test_pairs_of_start_and_done_are_one_transfer_each_as_often_as_their_loop_runs():
    found = hlo_costs.costs(PAIRS)
    assert found.transfers == {
        hlo_costs.Transfer('collective-permute', 2, overlapped=True): [7, 7 * 64 * 64 * 4],
        hlo_costs.Transfer('all-gather', 8, overlapped=False): [1, 1024 * 4],
        hlo_costs.Transfer('all-reduce', 4, overlapped=False): [1, 64 * 64 * 4],
    }
    assert found.flops == 7 * 2 * 64**3
    assert not found.uncounted


def test_a_loop_whose_end_is_not_known_is_told():
    found = hlo_costs.costs(PAIRS.replace('constant(7)', 'parameter(1)'))
    assert found.flops == 2 * 64**3
    assert list(found.uncounted) == ['while loop']


def test_text_that_is_no_module_is_refused():
    with pytest.raises(ValueError, match='no entry computation'):
        hlo_costs.costs('module @jit_f {}')
