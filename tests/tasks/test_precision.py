"""What stays float32 when towers compute in bfloat16: the loss's jaxpr, walked to the bottom."""

import collections
import functools

import jax
import jax.numpy as jnp
import pytest
import small_run
from jax.extend import core

from alm_jax.tasks import build_task
from alm_jax.training import optimizer as optimizer_lib
from alm_jax.training import state

FLOAT32, BFLOAT16 = jnp.dtype('float32'), jnp.dtype('bfloat16')
# What softmax, log-sum-exp and norms are made of, and the scores that softmax takes.
EXACT = {'exp', 'log', 'log1p', 'rsqrt', 'sqrt', 'div', 'reduce_sum', 'scores'}
# Activations and the scale of what dropout leaves have the precision of products, as is usual.
ROUNDED = ('gelu', 'Dropout')
AUDIO = {
    'spectrogram_transformer': 'whisper_80',
    'htsat': 'clap',
    'whisper': 'whisper_80',
}


@functools.cache
def traced(audio):
    """(task, optimizer, state of shapes, jaxprs of the loss and of its gradient, gradients)."""
    config = small_run.make_config()
    config.compute_dtype = 'bfloat16'
    config.model.audio = {'name': audio, 'variant': 'mu'}
    config.front_end.preset = AUDIO[audio]
    config.front_end.seconds = 0.5
    task = build_task(config)
    spec = small_run.batch(0) | {'pcm': jnp.zeros((small_run.ROWS, task.window_samples), jnp.int16)}

    def init():
        return task.init(jax.random.key(0), spec)

    optimizer = optimizer_lib.make_optimizer(config, jax.eval_shape(init)[0])
    planned = state.abstract(init, optimizer)

    def loss(params):
        return task.loss(params, planned_extra, spec, jax.random.key(1))[0]

    planned_extra = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), planned.extra)
    value, gradients = jax.eval_shape(jax.value_and_grad(loss), planned.params)
    return jax.make_jaxpr(loss)(planned.params).jaxpr, planned, value, gradients


def equations(jaxpr, scope=''):
    """(scope, equation) of a jaxpr and of all within it."""
    for equation in jaxpr.eqns:
        inner = f'{scope}/{equation.source_info.name_stack}/{equation.params.get("name", "")}'
        if equation.outvars:
            yield inner, equation
        for within in core.jaxprs_in_params(equation.params):
            yield from equations(within, inner)


def kind(equation):
    """The primitive's name; 'scores' for a batched product over the last axis of both."""
    name = equation.primitive.name
    if name != 'dot_general':
        return name
    (left, right), (batch, _) = equation.params['dimension_numbers']
    last = [operand.aval.ndim - 1 for operand in equation.invars]
    return 'scores' if batch and [*left, *right] == last else name


@pytest.mark.parametrize('audio', AUDIO)
def test_softmax_norms_and_scores_are_float32(audio):
    jaxpr, *_ = traced(audio)
    found, low = collections.Counter(), []
    for scope, equation in equations(jaxpr):
        name = kind(equation)
        dtype = equation.outvars[0].aval.dtype
        found[name, str(dtype)] += 1
        if name in EXACT and dtype == BFLOAT16 and not any(word in scope for word in ROUNDED):
            low.append((name, scope))
    assert low == []
    assert found['dot_general', 'bfloat16'] > 10  # the products are where bfloat16 pays
    for name in ('exp', 'log', 'rsqrt', 'reduce_sum', 'scores'):
        assert found[name, 'float32'], name


@pytest.mark.parametrize('audio', AUDIO)
def test_the_objective_knows_no_bfloat16(audio):
    jaxpr, *_ = traced(audio)
    inside = [equation for scope, equation in equations(jaxpr) if 'objective' in scope]
    assert 'dot_general' in {equation.primitive.name for equation in inside}
    for equation in inside:
        dtypes = {v.aval.dtype for v in (*equation.invars, *equation.outvars)}
        assert BFLOAT16 not in dtypes, equation


@pytest.mark.parametrize('audio', AUDIO)
def test_parameters_moments_and_gradients_are_float32(audio):
    _, planned, value, gradients = traced(audio)
    kept = jax.tree.leaves((planned.params, planned.opt_state, gradients, value))
    floats = [leaf.dtype for leaf in kept if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {FLOAT32}
    assert len(floats) > 3 * len(jax.tree.leaves(planned.params))
