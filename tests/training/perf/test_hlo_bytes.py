"""Bytes of main memory that instructions move, against arithmetic by hand."""

import jax
import jax.numpy as jnp
import pytest

from alm_jax.training.perf import hlo_costs, hlo_text

F32 = 4
PROGRAM = """HloModule bytes, is_scheduled=true

%layer (stack: f32[12,64,128], i: s32[], x: f32[64,128]) -> f32[64,128] {
  %stack = f32[12,64,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,64,128]{2,1,0} dynamic-slice(%stack, %i, %zero, %zero)
  %row = f32[64,128]{1,0} bitcast(%slice)
  %x = f32[64,128]{1,0} parameter(2)
  ROOT %sum = f32[64,128]{1,0} add(%row, %x)
}

%keep (stack: f32[12,64,128], i: s32[], x: f32[64,128]) -> f32[12,64,128] {
  %stack = f32[12,64,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %x = f32[64,128]{1,0} parameter(2)
  %row = f32[1,64,128]{2,1,0} bitcast(%x)
  ROOT %new = f32[12,64,128]{2,1,0} dynamic-update-slice(%stack, %row, %i, %zero, %zero)
}

%square (x: f32[64,128]) -> f32[64,128] {
  %x = f32[64,128]{1,0} parameter(0)
  ROOT %product = f32[64,128]{1,0} multiply(%x, %x)
}

ENTRY %main (stack: f32[12,64,128], i: s32[], x: f32[64,128]) -> (f32[64,128], f32[12,64,128]) {
  %stack = f32[12,64,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %x = f32[64,128]{1,0} parameter(2)
  BODY
  ROOT %t = (f32[64,128]{1,0}, f32[12,64,128]{2,1,0}) tuple(%x, %stack)
}
"""
ROW = 64 * 128 * F32


@pytest.mark.parametrize(
    ('instruction', 'moved'),
    [
        # The layer's row and x are read, a row is written; the stack is not.
        ('f32[64,128]{1,0} fusion(%stack, %i, %x), kind=kLoop, calls=%layer', 3 * ROW + F32),
        # Its row is written in place, and what was there is not read.
        ('f32[12,64,128]{2,1,0} fusion(%stack, %i, %x), kind=kLoop, calls=%keep', 2 * ROW + F32),
        # An operand that is used twice inside is read once.
        ('f32[64,128]{1,0} fusion(%x), kind=kLoop, calls=%square', 2 * ROW),
        ('f32[64,128]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%square', ROW),
        ('f32[64,128]{1,0} add(%x, %x)', 3 * ROW),
        ('f32[8192]{0} bitcast(%x)', 0),
        ('(f32[64,128]{1,0}) tuple(%x)', 0),
        ('f32[1,64,128]{2,1,0} slice(%stack), slice={[0:1], [0:64], [0:128]}', 2 * ROW),
        ('f32[64,128]{1,0} custom-call(), custom_call_target="AllocateBuffer"', 0),
        # cuBLAS gets 32 MiB to work in, which it does not fill.
        (
            '(f32[64,64]{1,0}, s8[33554432]{0}) custom-call(%x, %x), '
            'custom_call_target="__cublas$gemm", '
            'backend_config={"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}',
            2 * ROW + ROW / 2,
        ),
    ],
)
def test_an_instruction_moves(instruction, moved):
    text = PROGRAM.replace('BODY', f'%y = {instruction}')
    assert hlo_costs.costs(text).bytes == moved


@pytest.mark.parametrize(
    ('shape', 'size'),
    [
        ('f32[64,128]{1,0}', 64 * 128 * 4),
        ('bf16[8,64,64]{2,1,0:T(8,128)(2,1)}', 8 * 64 * 128 * 2),  # rows of 64 lie in rows of 128
        ('bf16[8,64,3]{0,1,2:T(8,128)(2,1)}', 128 * 64 * 3 * 2),
        ('f32[100]{0:T(128)}', 128 * 4),
        ('pred[]{:T(128)}', 1),
    ],
)
def test_tiles_of_a_layout_pad_what_is_stored(shape, size):
    (array,) = hlo_text.arrays(shape)
    assert array.bytes == size


def test_a_program_without_loops_moves_what_xla_says():
    def loss(params, x):
        for kernel in params:
            x = jnp.tanh(x @ kernel)
        return jnp.sum(x[:, :16] ** 2)

    params = [jax.ShapeDtypeStruct((256, 256), jnp.float32)] * 3
    x = jax.ShapeDtypeStruct((512, 256), jnp.float32)
    compiled = jax.jit(jax.grad(loss)).lower(params, x).compile()
    theirs = compiled.cost_analysis()['bytes accessed']
    assert hlo_costs.costs(compiled.as_text()).bytes == pytest.approx(theirs, rel=0.05)
