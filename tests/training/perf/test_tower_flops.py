"""FLOPs of every tower by its mathematics against XLA's own cost analysis, at a depth of one.

XLA analyses the program before it is compiled, at sizes at which products are nearly all there is;
it counts the body of a scan once, so there is one layer of each kind.
"""

import jax
import jax.numpy as jnp
import pytest

from alm_jax.models import two_tower
from alm_jax.models.audio import beats, cnn14, htsat, spectrogram_transformer, whisper
from alm_jax.models.text import bert
from alm_jax.training.perf import model_flops

ROWS, TOKENS = 4, 64
# name -> (options, frames and bands of the log-mel)
AUDIO = {
    'beats': ({'variant': beats.Size(width=512, depth=1, heads=8, embedding=512)}, (256, 128)),
    'cnn14': ({'variant': cnn14.Size(widths=(32, 64, 128), embedding=512)}, (256, 64)),
    'htsat': (
        {'variant': htsat.Size(width=192, depths=(2, 2), heads=(4, 8), image=128)},
        (256, 64),
    ),
    'spectrogram_transformer': (
        {'variant': spectrogram_transformer.Size(width=512, depth=1, heads=8)},
        (256, 128),
    ),
    'whisper': ({'variant': whisper.Size(width=512, depth=1, heads=8)}, (256, 80)),
    'yamnet': ({}, (192, 64)),
}
TEXT = {'bert': {'variant': bert.Size(512, 1, 8)}}


def audio_tower(name):
    options, (frames, bands) = AUDIO[name]
    tower = two_tower.AUDIO_ENCODERS[name](**options)
    return tower, (jnp.zeros((ROWS, frames, bands)), jnp.full((ROWS,), frames))


def text_tower(name):
    tower = two_tower.TEXT_ENCODERS[name](**TEXT[name])
    return tower, (jnp.zeros((ROWS, TOKENS), jnp.int32), jnp.ones((ROWS, TOKENS), bool))


def test_every_tower_is_here():
    assert set(AUDIO) == set(two_tower.AUDIO_ENCODERS)
    assert set(TEXT) == set(two_tower.TEXT_ENCODERS)


def loss_of(tower, inputs):
    """(loss(params, frozen, inputs), shapes of the parameters)."""
    variables = dict(jax.eval_shape(tower.init, jax.random.key(0), *inputs))
    params = variables.pop('params')

    def loss(params, frozen, inputs):
        extra = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
        found = tower.apply({'params': {**frozen, **params}, **extra}, *inputs)
        return jnp.sum(found['pooled'].astype(jnp.float32) ** 2)

    return loss, params


@pytest.mark.parametrize(
    ('build', 'name'), [(audio_tower, name) for name in AUDIO] + [(text_tower, n) for n in TEXT]
)
def test_forward_and_gradient_are_what_xla_counts_within_five_per_cent(build, name):
    tower, inputs = build(name)
    loss, params = loss_of(tower, inputs)
    forward = model_flops.count(loss, {}, params, inputs)
    trained = model_flops.count(loss, params, {}, inputs)
    assert forward.uncounted == trained.uncounted == 0
    for found, program in (
        (forward, jax.jit(lambda p, x: loss({}, p, x))),
        (trained, jax.jit(lambda p, x: jax.value_and_grad(loss)(p, {}, x))),
    ):
        xla = program.lower(params, inputs).cost_analysis()['flops']
        assert found.model + found.front_end == pytest.approx(xla, rel=0.05)


@pytest.mark.parametrize('depth', [1, 3])
def test_weights_cost_six_trained_four_passing_gradients_and_two_frozen(depth):
    width = 128
    tower = bert.Bert(bert.Size(width, depth, 4))
    inputs = text_tower('bert')[1]
    loss, params = loss_of(tower, inputs)
    embeddings = {name: params[name] for name in params if 'embedding' in name}
    layers = {name: params[name] for name in params if name not in embeddings}
    products = [leaf.size for leaf in jax.tree.leaves(layers) if leaf.ndim > 2]  # [depth, ...]
    weights = sum(products) * ROWS * TOKENS  # with the biases of heads, [depth, heads, width]
    attention = 4 * depth * ROWS * TOKENS**2 * width
    for trained, kept, times, passes in (
        ({**layers, **embeddings}, {}, 6, 3),
        (embeddings, layers, 4, 3),
        ({}, params, 2, 1),
    ):
        found = model_flops.count(loss, trained, kept, inputs).model
        assert found == pytest.approx(times * weights + passes * attention, rel=0.01)
