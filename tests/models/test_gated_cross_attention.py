"""Gated blocks between the layers of a decoder: nothing at the start, then attention to clips."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.models.gated_cross_attention import GatedBlock, GatedCrossAttention, seen_clips
from alm_jax.models.layers.rotary import Rope
from alm_jax.models.text.decoder import Decoder, Size
from alm_jax.training.param_names import flatten_canonical

SIZE = Size(32, 4, 4, 48, 50, kv_heads=2)
WINDOWED = dataclasses.replace(
    SIZE, window=3, windowed=(True, False, True, True), window_rope=Rope(100.0)
)


def randomised(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.float32(0.3 * rng.standard_normal(s.shape)), shapes)


def inputs(t=7, s=6):
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 50, (2, t))
    memory = rng.standard_normal((2, s, 20)).astype(np.float32)
    seen = rng.random((2, t, s)) < 0.6
    seen[0, :2] = False
    return jnp.int32(ids), memory, seen


@functools.cache
def built(every, size=SIZE, **options):
    connector = GatedCrossAttention(
        32, size.depth, every, heads=2, head_dim=8, depth=1, memory_heads=2, memory_mlp_width=16
    )
    decoder = Decoder(size, **options)
    keys = jax.random.split(jax.random.key(0))
    arguments = np.zeros((1, 6, 20), np.float32), np.ones((1, 6), bool)
    of_connector = jax.eval_shape(connector.init, keys[0], *arguments)['params']
    of_decoder = jax.eval_shape(decoder.init, keys[1], jnp.zeros((1, 4), jnp.int32))['params']
    return connector, decoder, randomised(of_connector), randomised(of_decoder, 1)


def run(built, params, ids, memory, seen, **options):
    """The decoder with gated blocks."""
    connector, decoder, _, _ = built
    of_connector, of_decoder = params
    variables = {'params': of_connector}
    gated = connector.apply(variables, memory, jnp.asarray(seen), method='gated')
    return decoder.apply({'params': of_decoder}, ids, gated=gated, **options)


def test_a_block_is_what_the_paper_says():
    """Against numpy, one head at a time; a position that sees nothing gets its MLP alone."""
    _, memory, seen = inputs()
    x = np.random.default_rng(0).standard_normal((2, 7, 32)).astype(np.float32)
    block = GatedBlock(heads=2, head_dim=8, mlp_width=40)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x, memory, seen)['params']
    params = randomised(shapes)
    got, _ = block.apply({'params': params}, x, memory, seen)

    p = jax.tree.map(np.asarray, params)

    def norm(name, x):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
        return x * p[name]['scale'] + p[name]['bias']

    want = x.copy()
    for row, t in np.ndindex(2, 7):
        allowed = memory[row, seen[row, t]]
        y = norm('attn_norm', x[row, t])
        heads = []
        for head in range(2 * bool(len(allowed))):
            of = slice(8 * head, 8 * head + 8)
            query, keys = y @ p['attn']['query']['kernel'], allowed @ p['attn']['key']['kernel']
            scores = np.exp(keys[:, of] @ query[of] / np.sqrt(8))
            values = allowed @ p['attn']['value']['kernel']
            heads.append(scores @ values[:, of] / scores.sum())
        if heads:
            out = np.concatenate(heads) @ p['attn']['out']['kernel']
            want[row, t] += np.tanh(p['attn_gate']) * out
        hidden = norm('mlp_norm', want[row, t]) @ p['mlp']['up']['kernel']
        gelu = np.asarray(jax.nn.gelu(hidden, approximate=False))
        want[row, t] += np.tanh(p['mlp_gate']) * (gelu @ p['mlp']['down']['kernel'])
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize('remat', ['none', 'block'])
@pytest.mark.parametrize('size', [SIZE, WINDOWED], ids=['plain', 'windowed'])
@pytest.mark.parametrize('every', [1, 2, 4])
def test_gates_at_zero_are_the_plain_decoder(every, size, remat):
    """To the bit, and the gates' own gradients are not zero."""
    parts = built(every, size, remat=remat)
    _, decoder, of_connector, of_decoder = parts
    ids, memory, seen = inputs()
    zeros = {
        name: jnp.zeros_like(of_connector['layers'][name]) for name in ('attn_gate', 'mlp_gate')
    }
    closed = {**of_connector, 'layers': {**of_connector['layers'], **zeros}}
    got = jax.jit(lambda: run(parts, (closed, of_decoder), ids, memory, seen))()
    want = jax.jit(lambda: decoder.apply({'params': of_decoder}, ids))()
    for name in ('embeddings', 'hidden', 'tokens', 'logits'):
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)

    def loss(of_connector):
        return jnp.sum(jnp.sin(run(parts, (of_connector, of_decoder), ids, memory, seen)['logits']))

    gradient = jax.jit(jax.grad(loss))(closed)['layers']
    assert gradient['attn_gate'].shape == (SIZE.depth // every,)
    assert np.abs(gradient['attn_gate']).min() > 1e-6
    assert np.abs(gradient['mlp_gate']).min() > 1e-6


@pytest.mark.parametrize('every', [1, 2, 4])
def test_blocks_stand_before_every_so_many_layers(every):
    """Against a loop over the layers of decoders of one layer, in value and gradient."""
    parts = built(every)
    connector, _, of_connector, of_decoder = parts
    ids, memory, seen = inputs()

    def looped(of_connector, of_decoder):
        block = connector.bind({'params': of_connector}).gated(memory, seen).block
        one = Decoder(dataclasses.replace(SIZE, depth=1, head='none'))
        x = of_decoder['token_embedding']['embedding'][ids]
        for layer in range(SIZE.depth):
            if layer % every == 0:
                own = jax.tree.map(lambda a, i=layer // every: a[i], of_connector['layers'])
                x, _ = block.apply({'params': own}, x, memory, seen)
            alone = jax.tree.map(lambda a, i=layer: a[i : i + 1], of_decoder['layers'])
            params = {**of_decoder, 'layers': alone}
            x = one.apply({'params': params}, embeddings_btd=x)['hidden'][0]
        return x

    def number(make):
        return jax.jit(
            jax.value_and_grad(lambda *params: jnp.sum(jnp.sin(3 * make(*params))), (0, 1))
        )(of_connector, of_decoder)

    got = number(lambda *params: run(parts, params, ids, memory, seen)['hidden'][-1])
    want = number(looped)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max() + 1e-6)


@pytest.mark.parametrize('size', [SIZE, WINDOWED], ids=['plain', 'windowed'])
@pytest.mark.parametrize('every', [1, 2])
def test_step_by_step_equals_all_at_once(every, size):
    """Keys and values of the memory are made once; what is seen is said in each call."""
    parts = built(every, size)
    _, decoder, *params = parts
    ids, memory, seen = inputs()
    whole = run(parts, params, ids, memory, seen)['logits']
    start = {'cache': decoder.empty_cache(2, 7)}
    outputs = run(parts, params, ids[:, :4], memory, seen[:, :4], **start)
    made = outputs['cache']['layers']['gated']['key']
    assert made.shape == (SIZE.depth // every, 2, 2, 6, 8)
    got = [outputs['logits']]
    for t in range(4, 7):
        now = slice(t, t + 1)
        cache = outputs['cache']
        outputs = run(parts, params, ids[:, now], None, seen[:, now], cache=cache)
        got.append(outputs['logits'])
    difference = np.abs(np.concatenate(got, axis=1) - whole).max()
    assert difference <= 1e-5 * np.abs(whole).max()


def test_the_decoder_keeps_its_names():
    """A checkpoint of the language model fits as it is; the blocks are the connector's."""
    _, decoder, of_connector, of_decoder = built(2)
    ids, memory, seen = inputs()
    connector = built(2)[0]
    gated = connector.apply({'params': of_connector}, memory, seen, method='gated')
    fresh = jax.eval_shape(lambda key: decoder.init(key, ids, gated=gated), jax.random.key(0))[
        'params'
    ]
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, of_decoder)
    assert 'layers/1/attn/query/kernel' in flatten_canonical(of_connector)


def test_a_position_sees_the_clips_marked_so_far_in_its_segment():
    """Row 0: two segments with two clips and one; row 1: a clip that is absent in between."""
    here = np.array([[0, 1, 0, 1, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0, 0, 0]], bool)
    segments = jnp.array([[1, 1, 1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1, 0]])
    present = np.array([[True, True, True], [True, False, True]])
    got = np.asarray(seen_clips(here, segments, present))[:, :7].astype(int).tolist()
    assert got[0] == [
        *([0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]),
        *([0, 0, 0], [0, 0, 1]),
    ]
    assert got[1] == [[1, 0, 0]] * 3 + [[1, 0, 1]] * 4
    one = np.asarray(seen_clips(here, None, present))
    assert one[0, 5].tolist() == [True, True, False]


def test_blocks_that_do_not_divide_the_layers_are_refused():
    with pytest.raises(ConfigError, match='every is 3'):
        GatedCrossAttention(32, decoder_depth=4, every=3)
