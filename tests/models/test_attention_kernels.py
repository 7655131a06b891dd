"""Kernels of attention against a softmax written out, in value and gradient."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.layers import attention_cuda, attention_kernels, attention_plain, attention_tpu


def reference(query, key, value, mask, *, scale, causal, window):
    """float32, one product a line; a query that may attend to nothing attends evenly."""
    t, heads, size = query.shape[1:]
    s, groups = key.shape[1:3]
    query, key, value = (
        jnp.moveaxis(jnp.asarray(x, jnp.float32), 2, 1) for x in (query, key, value)
    )
    key, value = (jnp.repeat(x, heads // groups, axis=1) for x in (key, value))
    scores = jnp.matmul(query, key.mT, precision='highest') * (scale or 1 / np.sqrt(size))
    i, j = np.arange(t)[:, None], np.arange(s)[None]
    allowed = np.ones((t, s), bool)
    if causal:
        allowed &= j <= i
    if window:
        allowed &= j > i - window
    allowed = jnp.broadcast_to(allowed, scores.shape)
    if mask is not None:
        pairs = mask.dtype != bool
        allowed &= (mask[:, :, None] == mask[:, None])[:, None] if pairs else mask[:, None, None]
    scores = jnp.where(allowed, scores, -jnp.inf)
    none = ~allowed.any(axis=-1, keepdims=True)
    scores = jnp.where(none, 0.0, scores)
    powers = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    return jnp.moveaxis(jnp.matmul(weights, value, precision='highest'), 1, 2)


def drawn(t, s, heads, kv_heads, size, masked, dtype):
    """(query, key, value, mask, cotangent); of a mask, row 1 has no key and the last few holes.

    ``masked`` may be 'segments'.
    """
    keys = jax.random.split(jax.random.key(t + s), 5)
    shapes = [(3, t, heads, size), (3, s, kv_heads, size), (3, s, kv_heads, size)]
    query, key, value = (
        jax.random.normal(k, shape, jnp.float32).astype(dtype) for k, shape in zip(keys, shapes)
    )
    mask = None
    if masked == 'segments':  # row 1 is one, others several
        mask = jnp.cumsum(jax.random.bernoulli(keys[3], 0.02, (3, s)), axis=1).at[1].set(0)
    elif masked:
        mask = (
            jax.random.bernoulli(keys[3], 0.7, (3, s)).at[1].set(False).at[0, : s // 4].set(False)
        )
    cotangent = jax.random.normal(keys[4], query.shape, jnp.float32)
    return query, key, value, mask, cotangent


def value_and_gradients(attend, query, key, value, mask, cotangent):
    """float32 arrays: the result and what it is differentiated by query, key and value."""

    def loss(query, key, value):
        out = attend(query, key, value, mask).astype(jnp.float32)
        return (out * cotangent).sum(), out

    (_, out), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(query, key, value)
    return [np.asarray(x, np.float32) for x in (out, *gradients)]


CASES = {
    'one_block': ({'t': 200, 's': 200, 'heads': 2, 'kv_heads': 2, 'size': 16}, {}),
    'longer_memory': (
        {'t': 50, 's': 300, 'heads': 2, 'kv_heads': 2, 'size': 24, 'masked': True},
        {},
    ),
    'groups': (
        {'t': 130, 's': 600, 'heads': 4, 'kv_heads': 2, 'size': 16, 'masked': True},
        {'scale': 0.3},
    ),
    'causal': ({'t': 600, 's': 600, 'heads': 2, 'kv_heads': 1, 'size': 16}, {'causal': True}),
    'causal_masked': (
        {'t': 300, 's': 300, 'heads': 2, 'kv_heads': 2, 'size': 16, 'masked': True},
        {'causal': True},
    ),
    'segments': (
        {'t': 300, 's': 300, 'heads': 2, 'kv_heads': 1, 'size': 16, 'masked': 'segments'},
        {'causal': True},
    ),
    'window': (
        {'t': 700, 's': 700, 'heads': 2, 'kv_heads': 2, 'size': 16},
        {'causal': True, 'window': 90},
    ),
    'window_masked': (
        {'t': 700, 's': 700, 'heads': 2, 'kv_heads': 1, 'size': 16, 'masked': True},
        {'causal': True, 'window': 5},
    ),
}


TPU = functools.partial(attention_tpu.attend, interpret=True)
SHARDED = pathlib.Path(__file__).with_name('sharded_attention.py')


def assert_equal_to_reference(attend, sizes, options, dtype, tolerance):
    """``attend(query, key, value, mask, **options)``: its value and three gradients."""
    options = {'scale': None, 'causal': False, 'window': None} | options
    arrays = drawn(**{'masked': False} | sizes, dtype=dtype)
    wanted = value_and_gradients(functools.partial(reference, **options), *arrays)
    attend = jax.jit(functools.partial(attend, **options))
    found = value_and_gradients(attend, *arrays)
    for one, other in zip(found, wanted):
        assert np.isfinite(one).all()
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks a side at lengths that a test can afford."""
    monkeypatch.setattr(attention_tpu, 'LARGEST_BLOCK', 256)


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize('case', CASES)
def test_the_kernel_of_tpus_is_attention(case):
    kernel = functools.partial(attention_kernels._fused, TPU)
    assert_equal_to_reference(kernel, *CASES[case], jnp.float32, 1e-5)


@pytest.mark.usefixtures('small_blocks')
def test_the_kernel_of_tpus_in_bfloat16():
    sizes, options = CASES['causal_masked']
    kernel = functools.partial(attention_kernels._fused, TPU)
    assert_equal_to_reference(kernel, sizes, options, jnp.bfloat16, 1e-2)


@pytest.mark.parametrize('case', CASES)
def test_the_plain_form_is_attention(case):
    plain = functools.partial(attention_plain.attend, bias=None, softcap=None)

    def plain_of_pairs(*arrays, **options):
        return attention_kernels._of_pairs(functools.partial(plain, **options))(*arrays)

    assert_equal_to_reference(plain_of_pairs, *CASES[case], jnp.float32, 1e-5)


@pytest.mark.parametrize('case', CASES)
def test_the_kernel_of_gpus_is_attention(case):
    if jax.default_backend() != 'gpu' or not attention_cuda.installed():
        pytest.skip('needs a GPU and cuDNN')
    sizes, options = CASES[case]
    query, _, _, mask, _ = drawn(**{'masked': False} | sizes, dtype=jnp.bfloat16)
    if not attention_cuda.can(query, mask, options.get('causal', False), options.get('window')):
        pytest.skip('cuDNN has no kernel for it, and attend takes the plain form')

    def kernel(*arrays, **options):
        fused = functools.partial(attention_kernels._fused, attention_cuda.attend, **options)
        return attention_kernels._of_pairs(fused)(*arrays)

    assert_equal_to_reference(kernel, sizes, options, jnp.bfloat16, 2e-2)


def test_on_four_devices_it_is_that_of_one():
    flags = '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, SHARDED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def branches(t=1024, s=None, mask=None, dtype=jnp.bfloat16, **options):
    """Of the traced attention: the backends that have a form of their own."""
    query = jax.ShapeDtypeStruct((2, t, 4, 64), dtype)
    key = jax.ShapeDtypeStruct((2, s or t, 2, 64), dtype)
    traced = jax.make_jaxpr(functools.partial(attention_kernels.attend, **options))(
        query, key, key, mask
    )
    conditions = [e.params for e in traced.eqns if 'branches_platforms' in e.params]
    return {
        name
        for found in conditions
        for names in found['branches_platforms']
        for name in names or ()
    }


@pytest.mark.parametrize(
    'asked',
    [
        {'t': 77},
        {'t': 8, 's': 1500},
        {'mask': jax.ShapeDtypeStruct((2, 1024, 1024), bool)},
        {'bias': jnp.zeros((1, 4, 1, 1))},
        {'softcap': 50.0},
        {'s': 1500, 'causal': True},
    ],
    ids=['short', 'few_queries', 'mask_of_queries', 'bias', 'softcap', 'order_of_unequal_lengths'],
)
def test_what_a_kernel_cannot_or_should_not_do_is_plain(asked):
    assert 'tpu' not in branches(**asked)


@pytest.mark.parametrize(
    'asked',
    [
        {},
        {'t': 512, 's': 1500},
        {'causal': True},
        {'causal': True, 'window': 128, 'dtype': jnp.float32},
        {'causal': True, 'mask': jax.ShapeDtypeStruct((2, 1024), jnp.int32)},
    ],
    ids=['self', 'memory', 'causal', 'window', 'segments'],
)
def test_long_attention_has_a_form_for_tpus(asked):
    assert 'tpu' in branches(**asked)


def test_cpus_keep_no_scores_but_of_short_attention():
    assert 'cpu' in branches(t=77)
    assert 'cpu' in branches(mask=jax.ShapeDtypeStruct((2, 1024, 1024), bool))
    assert 'cpu' not in branches(t=50)
    assert 'cpu' not in branches(t=1, s=4096)
    assert 'cpu' not in branches(bias=jnp.zeros((1, 4, 1, 1)))


def test_cudnn_computes_in_two_bytes_and_in_heads_of_eights():
    def can(size, dtype, t=64, masked=False, causal=False, window=None):
        query = jax.ShapeDtypeStruct((2, t, 4, size), dtype)
        mask = masked if masked is not True else jnp.ones((2, t), bool)
        mask = None if mask is False else mask
        return attention_cuda.can(query, mask, causal, window)

    assert can(64, jnp.bfloat16)
    assert can(64, jnp.float16, masked=True)
    assert can(64, jnp.bfloat16, causal=True, window=8)
    assert not can(64, jnp.float32)
    assert not can(60, jnp.bfloat16)
    assert not can(256, jnp.bfloat16)
    assert not can(64, jnp.bfloat16, t=63, masked=True, causal=True)
    assert not can(64, jnp.bfloat16, masked=True, causal=True, window=8)
    assert can(64, jnp.bfloat16, masked=jnp.ones((2, 64), jnp.int32), causal=True)
    assert can(64, jnp.bfloat16, masked=jnp.ones((2, 64, 80), bool))
    assert not can(64, jnp.bfloat16, masked=jnp.ones((2, 64, 81), bool))


def test_cudnn_gets_the_allowed_keys_first_in_their_order():
    mask = jnp.array([[False, True, True, False], [False] * 4])
    key = jnp.arange(8.0).reshape(2, 4, 1, 1)
    key, value, lengths = attention_cuda._allowed_first(key, -key, mask)
    np.testing.assert_array_equal(lengths, [2, 1])
    np.testing.assert_array_equal(key[0, :2, 0, 0], [1, 2])
    np.testing.assert_array_equal(value, -key)


def test_blocks_are_few_and_their_padding_is_small():
    assert attention_tpu._blocks(512) == (512, 512)
    assert attention_tpu._blocks(1214) == (640, 1280)  # AST's patches
    assert attention_tpu._blocks(1500) == (768, 1536)  # Whisper's frames
    assert attention_tpu._blocks(50) == (128, 128)


@pytest.mark.slow_local
@pytest.mark.parametrize(
    ('platform', 'topology', 'kernels'),
    [
        ('TPU', 'v5e:2x2', ['splash_mha_fwd', 'splash_mha_dkv']),
        ('CUDA', 'h100:4', ['__cudnn$fmhaSoftmax"', '__cudnn$fmhaSoftmaxBackward"']),
    ],
)
def test_the_real_compilers_take_the_kernels_and_gather_nothing(platform, topology, kernels):
    python = os.environ.get(f'ALM_JAX_PYTHON_{platform}')
    if not python:
        pytest.skip(f'needs ALM_JAX_PYTHON_{platform}, a Python with the compiler')
    done = subprocess.run(
        [python, SHARDED, topology],
        capture_output=True,
        text=True,
        env=os.environ | {'XLA_FLAGS': '', 'PYTHONPATH': str(SHARDED.parents[2])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for kernel in kernels:
        assert kernel in done.stdout
    assert 'all-gather' not in done.stdout
