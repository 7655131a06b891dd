"""The CPU's attention against the plain one: values, gradients, and memory that does not grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.layers import attention_cpu, attention_kernels, attention_plain

CASES = {
    'whole': {},
    'mask': {'mask': 'keys'},
    'mask of pairs': {'mask': 'pairs'},
    'causal': {'causal': True},
    'window, grouped': {'causal': True, 'window': 5, 'kv_heads': 2},
    'causal, mask, scale': {'causal': True, 'mask': 'keys', 'scale': 0.3},
    'other keys': {'s': 9, 'mask': 'keys'},
}
# Scores of a block -> all at once, some rows, one row's heads, a part of one head's queries.
BLOCKS = (2**19, 2400, 700, 100)


def _inputs(b=4, t=17, s=17, heads=4, kv_heads=4, size=8, mask=None):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((b, t, heads, size), (b, s, kv_heads, size), (b, s, kv_heads, size))
    arrays = [jax.random.normal(k, shape) for k, shape in zip(keys, shapes)]
    if mask == 'keys':  # the last row may attend to nothing
        mask = jnp.arange(s) < jnp.array([s, s - 3, 1, 0])[:b, None]
    elif mask == 'pairs':
        mask = jax.random.bernoulli(keys[3], 0.5, (b, t, s)).at[0, 2].set(False)
    return arrays, mask


@pytest.mark.parametrize('scores', BLOCKS)
@pytest.mark.parametrize('case', CASES)
def test_equals_plain_attention_in_value_and_gradient(case, scores, monkeypatch):
    monkeypatch.setattr(attention_cpu, 'BLOCK_SCORES', scores)
    monkeypatch.setattr(attention_cpu, 'FEWEST_QUERIES', 4)
    options = {'scale': None, 'causal': False, 'window': None, **CASES[case]}
    shape = {name: options.pop(name) for name in ('s', 'kv_heads', 'mask') if name in options}
    arrays, mask = _inputs(**shape)

    def plain(*arrays):
        return attention_plain.attend(*arrays, mask, bias=None, softcap=None, **options)

    def blocks(*arrays):
        return attention_cpu.attend(*arrays, mask, **options)

    def both(function):
        y, vjp = jax.vjp(function, *arrays)
        return y, *vjp(jnp.sin(3 * arrays[0]))

    got, want = jax.jit(lambda: both(blocks))(), jax.jit(lambda: both(plain))()
    for ours, theirs in zip(got, want, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_scores_are_never_whole():
    """Temporaries of both passes at 1,024 positions: the plain form's scores alone are 32 MiB."""
    (query, key, value), _ = _inputs(b=2, t=1024, s=1024, size=16)

    def loss(query):
        return jnp.sum(jnp.square(attention_cpu.attend(query, key, value)))

    found = jax.jit(jax.grad(loss)).lower(query).compile().memory_analysis()
    assert found.temp_size_in_bytes < 14 * 2**20


def test_a_scan_keeps_no_scores_of_the_forms_for_other_backends():
    """Whose gradients keep more, and a choice among forms keeps what any of them does."""
    x = jnp.ones((1, 1024, 1, 8))

    def loss(x):
        def layer(x, _):
            return x + attention_kernels.attend(x, x, x), None

        return jnp.sum(jax.lax.scan(layer, x, length=16)[0])

    found = jax.jit(jax.grad(loss)).lower(x).compile().memory_analysis()
    assert found.temp_size_in_bytes < 16 * 2**20  # a quarter of the layers' scores


def test_bfloat16_stays_near_float32():
    arrays, _ = _inputs()
    low = attention_cpu.attend(*(x.astype(jnp.bfloat16) for x in arrays))
    assert low.dtype == jnp.bfloat16
    assert np.abs(low - attention_cpu.attend(*arrays)).max() < 0.05
