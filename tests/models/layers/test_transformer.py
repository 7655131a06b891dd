"""Transformer blocks against transformers' layers; the scanned stack against a plain loop."""

import functools
import json
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer
from transformers.models.bert import modeling_bert
from transformers.models.vit import modeling_vit

from alm_jax.config import ConfigError
from alm_jax.models.layers.transformer import TransformerBlock, transformer_stack

WIDTH, HEADS, MLP = 32, 4, 96


class _Stack(nn.Module):
    depth: int
    options: dict

    @nn.compact
    def __call__(self, x, mask=None):
        return transformer_stack(self.depth, heads=HEADS, mlp_width=MLP, **self.options)(x, mask)


def _inputs():
    x = jax.random.normal(jax.random.key(1), (3, 7, WIDTH))
    mask = jnp.arange(7) < jnp.array([7, 4, 1])[:, None]
    return x, mask


def _randomised(params, seed=0):
    """Every leaf random, so that no scale is 1 and no bias 0."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: np.float32(0.3 * rng.standard_normal(v.shape)), params)


def _copy(target, params):
    """Our Dense or LayerNorm into a torch Linear or LayerNorm."""
    weight = params['kernel'].T if 'kernel' in params else params['scale']
    target.weight.data = torch.tensor(np.asarray(weight))
    target.bias.data = torch.tensor(np.asarray(params['bias']))


def _copy_vit(layer, params):
    attention = getattr(layer.attention, 'attention', layer.attention)
    for ours, names in {
        'query': ('query', 'q_proj'),
        'key': ('key', 'k_proj'),
        'value': ('value', 'v_proj'),
    }.items():
        name = next(name for name in names if hasattr(attention, name))
        _copy(getattr(attention, name), params['attn'][ours])
    out = layer.attention.output.dense if hasattr(layer.attention, 'output') else attention.o_proj
    _copy(out, params['attn']['out'])
    _copy(layer.layernorm_before, params['attn_norm'])
    _copy(layer.layernorm_after, params['mlp_norm'])
    if hasattr(layer, 'mlp'):
        up, down = layer.mlp.fc1, layer.mlp.fc2
    else:
        up, down = layer.intermediate.dense, layer.output.dense
    _copy(up, params['mlp']['up'])
    _copy(down, params['mlp']['down'])


def _copy_bert(layer, params):
    for name in ('query', 'key', 'value'):
        _copy(getattr(layer.attention.self, name), params['attn'][name])
    _copy(layer.attention.output.dense, params['attn']['out'])
    _copy(layer.attention.output.LayerNorm, params['attn_norm'])
    _copy(layer.intermediate.dense, params['mlp']['up'])
    _copy(layer.output.dense, params['mlp']['down'])
    _copy(layer.output.LayerNorm, params['mlp_norm'])


REFERENCES = {
    'vit': (modeling_vit.ViTConfig, modeling_vit.ViTLayer, _copy_vit),
    'ast': (
        modeling_audio_spectrogram_transformer.ASTConfig,
        modeling_audio_spectrogram_transformer.ASTLayer,
        _copy_vit,
    ),
    'bert': (modeling_bert.BertConfig, modeling_bert.BertLayer, _copy_bert),
}


@pytest.mark.parametrize('name', REFERENCES)
def test_block_equals_transformers(name):
    """Output and gradient of the input within 1e-5 of the largest value."""
    config_class, layer_class, copy = REFERENCES[name]
    config = config_class(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        intermediate_size=MLP,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-6,
        attn_implementation='eager',
    )
    x, mask = _inputs()
    block = TransformerBlock(HEADS, MLP, post_norm=name == 'bert')
    params = _randomised(jax.eval_shape(block.init, jax.random.key(0), x)['params'])
    layer = layer_class(config).eval()
    copy(layer, params)
    theirs_x = torch.tensor(np.asarray(x), requires_grad=True)
    if name == 'bert':
        additive = torch.tensor(np.where(mask, 0.0, -1e30)[:, None, None], dtype=torch.float32)
        theirs = layer(theirs_x, additive)
    else:
        mask, theirs = None, layer(theirs_x)
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    cotangent = np.asarray(jax.random.normal(jax.random.key(2), theirs.shape))
    theirs.backward(torch.tensor(cotangent))

    @jax.jit
    def value_and_gradient(x):
        y, vjp = jax.vjp(lambda x: block.apply({'params': params}, x, mask)[0], x)
        return y, vjp(jnp.asarray(cotangent))[0]

    ours, gradient = value_and_gradient(x)
    for got, want in ((ours, theirs.detach()), (gradient, theirs_x.grad)):
        want = want.numpy()
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize(
    ('post_norm', 'remat'),
    [(False, 'none'), (True, 'block'), (False, 'dots'), (True, 'offload')],
)
def test_stack_equals_unrolled_loop(post_norm, remat):
    x, mask = _inputs()
    stack = _Stack(3, {'post_norm': post_norm, 'remat': remat})
    params = _randomised(jax.eval_shape(stack.init, jax.random.key(0), x, mask)['params'])

    def scanned(params, x):
        return stack.apply({'params': params}, x, mask)

    def loop(params, x):
        hidden = []
        for i in range(3):
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], params['layers'])
            block = TransformerBlock(HEADS, MLP, post_norm=post_norm)
            x, _ = block.apply({'params': layer}, x, mask)
            hidden.append(x)
        return x, jnp.stack(hidden)

    def loss(function, params):
        y, hidden = function(params, x)
        return jnp.sum(jnp.sin(y)), hidden

    (got, got_hidden), got_gradient = jax.jit(
        jax.value_and_grad(functools.partial(loss, scanned), has_aux=True)
    )(params)
    (want, want_hidden), want_gradient = jax.jit(
        jax.value_and_grad(functools.partial(loss, loop), has_aux=True)
    )(params)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(got_hidden, want_hidden, rtol=1e-5, atol=1e-5)
    # Softmax cancels a key bias, whose gradient is rounding alone: it goes by the query's.
    size = jax.tree.map(np.linalg.norm, want_gradient)
    size['layers']['attn']['key']['bias'] = size['layers']['attn']['query']['bias']
    error = jax.tree.map(
        lambda ours, theirs: np.linalg.norm(ours - theirs), got_gradient, want_gradient
    )
    for one, whole in zip(jax.tree.leaves(error), jax.tree.leaves(size), strict=True):
        assert one <= 1e-5 * whole


def test_layers_start_different_and_drop_out_different():
    """Split rngs: equal layers would halve the model, equal dropout masks would correlate it."""
    x, mask = _inputs()
    params = jax.jit(_Stack(2, {}).init)(jax.random.key(0), x, mask)['params']
    kernel = params['layers']['attn']['query']['kernel']
    assert kernel.shape == (2, WIDTH, WIDTH)
    assert not np.allclose(kernel[0], kernel[1])
    stack = _Stack(2, {'dropout': 0.5, 'train': True})
    zeroed = jax.tree.map(jnp.zeros_like, params)
    zeroed['layers']['mlp']['down']['bias'] += 1.0  # each layer adds its dropout mask
    _, hidden = jax.jit(stack.apply)({'params': zeroed}, 0 * x, rngs={'dropout': jax.random.key(3)})
    first, second = hidden[0], hidden[1] - hidden[0]
    assert set(np.unique(first)) == {0.0, 2.0}
    assert 0.3 < np.mean(first == second) < 0.7


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters():
    x, mask = _inputs()
    stack = _Stack(2, {'dtype': jnp.bfloat16})
    variables = jax.jit(stack.init)(jax.random.key(0), x.astype(jnp.bfloat16), mask)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    low, _ = jax.jit(stack.apply)(variables, x.astype(jnp.bfloat16), mask)
    high, _ = jax.jit(_Stack(2, {}).apply)(variables, x, mask)
    assert low.dtype == jnp.bfloat16
    assert 0 < np.abs(low - high).max() < 0.1 * np.abs(high).max()


def test_unknown_remat_names_the_nearest():
    x, _ = _inputs()
    with pytest.raises(ConfigError, match="Did you mean 'block'"):
        _Stack(2, {'remat': 'blocks'}).init(jax.random.key(0), x)


@pytest.mark.slow_local
@pytest.mark.parametrize('topology', ['v5e:2x2', 'h100:8'])
def test_offload_moves_what_dots_keeps_to_the_host(compiler_python, topology):
    """By the compilers' own analysis: none is run."""
    script = pathlib.Path(__file__).with_name('remat_memory.py')
    command = [compiler_python(topology), script, topology]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    none, dots, offload = (found[name]['temporaries'] for name in ('none', 'dots', 'offload'))
    assert offload < dots / 2 < none / 4
    assert found['offload']['peak'] < found['dots']['peak']
    host = [found[name]['host temporaries'] for name in ('none', 'dots', 'offload')]
    assert host[:2] == [0, 0]
    assert host[2] > dots / 2
