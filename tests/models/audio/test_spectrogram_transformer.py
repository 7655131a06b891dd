"""Any length, padding without effect, gradients everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.models.audio.spectrogram_positions import _fit
from alm_jax.models.audio.spectrogram_transformer import VARIANTS, Size, SpectrogramTransformer


def _mel(frames=70, bins=64):
    return jax.random.normal(jax.random.key(1), (3, frames, bins))


@pytest.fixture(scope='module', params=[(16, 16), (10, 12)], ids=['abutting', 'overlapping'])
def encoder(request):
    model = SpectrogramTransformer('mu', stride=request.param, input_mean=0.5, input_std=2.0)
    variables = jax.jit(model.init)(jax.random.key(0), _mel(), jnp.array([70, 70, 70]))
    return jax.jit(lambda mel, n: model.apply(variables, mel, n))


def test_padding_never_changes_the_result(encoder):
    """Bit-equal whatever the padding holds; equal to 1e-5 however much of it there is."""
    mel, lengths = _mel(), jnp.array([70, 33, 5])
    outputs = encoder(mel, lengths)
    padding = jnp.arange(70) >= lengths[:, None]
    for rubbish in (1e6, jnp.nan):
        poisoned = encoder(jnp.where(padding[..., None], rubbish, mel), lengths)
        for name in ('pooled', 'frames', 'hidden'):
            np.testing.assert_array_equal(poisoned[name], outputs[name])
    for row, length in enumerate(lengths):
        alone = encoder(mel[row : row + 1, : int(length)], lengths[row : row + 1])
        np.testing.assert_allclose(alone['pooled'][0], outputs['pooled'][row], atol=1e-5)
        steps = alone['frames'].shape[1]
        assert outputs['frame_mask'][row].tolist() == [
            i < steps for i in range(outputs['frames'].shape[1])
        ]
        np.testing.assert_allclose(alone['frames'][0], outputs['frames'][row, :steps], atol=1e-5)


def test_frames_within_the_length_do_change_the_result(encoder):
    mel, lengths = _mel(), jnp.array([70, 33, 5])
    changed = encoder(mel.at[jnp.arange(3), lengths - 1].add(3.0), lengths)
    moved = np.abs(changed['pooled'] - encoder(mel, lengths)['pooled']).max(axis=1)
    assert (moved > 1e-4).all()


def test_patches_match_a_loop():
    """The patch embedding is kernel . patch + bias + position, patch by patch."""
    model = SpectrogramTransformer('mu', stride=(10, 12), input_mean=0.5, input_std=2.0)
    mel = _mel(frames=38)
    variables = jax.jit(model.init)(jax.random.key(0), mel, jnp.array([38] * 3))
    got = jax.jit(model.apply)(variables, mel, jnp.array([38] * 3))['embeddings'].reshape(
        3, 4, 5, 64
    )
    params = variables['params']
    padded = np.pad((np.asarray(mel) - 0.5) / 2, ((0, 0), (0, 8), (0, 0)))
    for step in range(4):
        rate = 10_000.0 ** (-np.arange(0, 64, 2) / 64)
        time = np.concatenate([np.sin(step * rate), np.cos(step * rate)])
        for band in range(5):
            patch = padded[:, step * 10 : step * 10 + 16, band * 12 : band * 12 + 16]
            kernel = np.asarray(params['patch_embedding']['kernel'])[:, :, 0]
            want = np.einsum('btf,tfd->bd', patch, kernel)
            want += time + params['frequency_embedding']['embedding'][band]
            np.testing.assert_allclose(got[:, step, band], want, atol=1e-5)


def test_gradients_reach_every_parameter():
    model = SpectrogramTransformer('mu', dropout=0.1, remat='block')
    mel, lengths = _mel(), jnp.array([70, 33, 5])
    params = jax.jit(model.init)(jax.random.key(0), mel, lengths)['params']

    def loss(params):
        rngs = {'dropout': jax.random.key(2)}
        pooled = model.apply({'params': params}, mel, lengths, train=True, rngs=rngs)['pooled']
        return jnp.sum(jnp.sin(3 * pooled))

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # A key bias shifts all logits of a query alike: softmax cancels it.
        assert np.abs(leaf).max() > 1e-7 or "['key']['bias']" in name, name


def test_variants_have_their_published_sizes():
    """Parameters of the blocks: 12 d^2 + 13 d each (ViT, Dosovitskiy et al. 2021, table 1)."""
    for variant, millions in {'Ti': 5.3, 'S': 21.3, 'B': 85.1, 'L': 302.3}.items():
        model = SpectrogramTransformer(variant)
        shapes = jax.eval_shape(model.init, jax.random.key(0), _mel(), jnp.array([70] * 3))
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes['params']['layers']))
        size = VARIANTS[variant]
        assert count == size.depth * (12 * size.width**2 + 13 * size.width)
        assert round(count / 1e6, 1) == millions


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"model.audio.variant is 'BB'"):
        SpectrogramTransformer('BB').init(jax.random.key(0), _mel(), jnp.array([70] * 3))
    with pytest.raises(ValueError, match='8 mel bins'):
        SpectrogramTransformer('mu').init(jax.random.key(0), _mel(bins=8), jnp.array([70] * 3))


def _random_params(model, *inputs):
    """Compiles less than ``init``."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype('f4'), shapes)


LEARNED = {
    'absolute': {
        'stride': (10, 10),
        'positions': 'absolute',
        'grid': (6, 5),
        'prefix': 2,
        'pool': 'prefix',
        'classes': 3,
        'head_norm': 1e-5,
    },
    'separable': {
        'positions': 'separable',
        'grid': (9, 4),
        'prefix': 1,
        'modality': True,
        'norm_pooled': True,
    },
}


@pytest.mark.parametrize('kind', LEARNED)
def test_learned_positions_with_a_mask(kind):
    """Padding changes nothing, and every parameter has a gradient."""
    model = SpectrogramTransformer(Size(16, 1, 2), partial=False, **LEARNED[kind])
    mel, lengths = _mel(60), jnp.array([60, 43, 17])
    params = _random_params(model, mel, lengths)

    def loss(params, mel):
        outputs = model.apply({'params': params}, mel, lengths)
        return jnp.sum(jnp.sin(3 * outputs.get('logits', outputs['pooled']))), outputs

    gradient, short = jax.jit(jax.grad(loss, has_aux=True))(params, mel)
    padded = jnp.pad(mel, ((0, 0), (0, 10), (0, 0)), constant_values=1e6)
    long = jax.jit(loss)(params, padded)[1]
    np.testing.assert_allclose(short['pooled'], long['pooled'], atol=1e-5)
    steps = short['frame_mask'].shape[1]
    np.testing.assert_array_equal(short['frame_mask'], long['frame_mask'][:, :steps])
    assert not long['frame_mask'][:, steps:].any()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 1e-7 or "['key']['bias']" in name, name


def test_patchout_leaves_out_what_it_says():
    """Rows of the whole batch alike; none without training; other keys leave out others."""
    options = {'patchout': (2, 1), 'token_patchout': 3, 'prefix': 1, 'pool': 'prefix'}
    model = SpectrogramTransformer(Size(16, 1, 2), **options)
    mel, lengths = _mel(80), jnp.array([80] * 3)
    params = _random_params(model, mel, lengths)

    @jax.jit
    def train(key):
        rngs = {'dropout': key}
        whole = model.apply({'params': params}, mel, lengths)['embeddings']
        return model.apply({'params': params}, mel, lengths, train=True, rngs=rngs), whole

    calls = [train(jax.random.key(i)) for i in (1, 1, 2)]
    whole, calls = calls[0][1], [outputs for outputs, _ in calls]
    grid = np.asarray(whole[:, 1:]).reshape(3, 5, 4, 16)
    for outputs in calls:
        kept = grid[:, outputs['kept_steps']][:, :, outputs['kept_bands']].reshape(3, 9, 16)
        want = kept[:, outputs['kept_tokens']]
        np.testing.assert_array_equal(outputs['embeddings'][:, 1:], want)
        assert want.shape == (3, 6, 16)
        assert 'frames' not in outputs
    np.testing.assert_array_equal(calls[0]['pooled'], calls[1]['pooled'])
    names = ('kept_steps', 'kept_bands', 'kept_tokens')
    assert any(not np.array_equal(calls[0][name], calls[2][name]) for name in names)
    none_left = SpectrogramTransformer(Size(16, 1, 2), patchout=(5, 0))
    rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
    with pytest.raises(ValueError, match='leaves none of 5'):
        jax.eval_shape(lambda: none_left.init_with_output(rngs, mel, lengths, train=True))


@pytest.mark.parametrize('steps', [4, 7, 11, 25])
def test_positions_are_stretched_as_torch_does_it(steps):
    """Fewer steps are the middle ones; more are interpolated, half-pixel centres."""
    torch = pytest.importorskip('torch')
    table = np.random.default_rng(0).normal(size=(11, 3, 8)).astype(np.float32)
    got = _fit(jnp.asarray(table), steps, stretch=True)
    picture = torch.tensor(table).permute(2, 1, 0)[None]
    if steps > 11:
        want = torch.nn.functional.interpolate(picture, (3, steps), mode='bilinear')
    else:
        first = 11 // 2 - steps // 2
        want = picture[..., first : first + steps]
    np.testing.assert_allclose(got, want[0].permute(2, 1, 0), atol=1e-5)
    with pytest.raises(ValueError, match='positions for 11'):
        _fit(jnp.asarray(table), 12, stretch=False)
