"""Chunked and ring forms: equal to the dense ones on any number of devices, and small."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.objectives import blockwise, contrastive

SCRIPT = pathlib.Path(__file__).with_name('every_form.py')


@pytest.fixture(scope='module')
def cases():
    flags = '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.rsplit(': ', 1) for line in done.stdout.splitlines()]
    return {case: float(error) for case, error in lines}


def test_values_and_gradients_equal_the_dense_ones(cases):
    assert len(cases) == 3 * 3 * 4
    assert not {case: error for case, error in cases.items() if not error <= 1e-5}


def temporary_bytes(objective, rows, width=8):
    z = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    own = jax.ShapeDtypeStruct((rows,), jnp.int32)  # as a constant it would be folded for a minute
    compiled = jax.jit(jax.grad(objective, argnums=(0, 1))).lower(z, z, own).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize('form', blockwise.FORMS)
def test_both_passes_hold_blocks_and_not_the_matrix(form):
    rows, chunk = 4096, 32

    def dense(za, zt, own):
        return contrastive.multi_positive(za, zt, 10.0, own, own)

    def blocks(za, zt, own):
        return blockwise.multi_positive(za, zt, 10.0, own, own, form=form, chunk=chunk)

    assert temporary_bytes(dense, rows) > rows * rows * 4
    assert temporary_bytes(blocks, rows) < 8 * chunk * rows * 4


def test_bf16_embeddings_have_bf16_gradients():
    z = jnp.asarray(np.eye(4), jnp.bfloat16)
    own = jnp.arange(4)

    def loss(z):
        return blockwise.multi_positive(z, z, 5.0, own, own, form='ring', chunk=3)

    value, gradient = jax.value_and_grad(loss)(z)
    assert value.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16
