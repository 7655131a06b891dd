"""Whisper's encoder beyond its reference: masks, shorter windows, its start, and as a tower."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.models.audio.whisper import WhisperEncoder

FRAMES = np.array([61, 24, 1])


@pytest.fixture(scope='module')
def clips():
    """Three clips of different lengths; what stands behind their ends is loud."""
    mel = np.random.default_rng(0).normal(size=(3, 64, 80)).astype(np.float32)
    return np.where((np.arange(64) < FRAMES[:, None])[..., None], mel, 5.0).astype(np.float32)


@pytest.fixture(scope='module')
def params(clips):
    made = jax.jit(WhisperEncoder('mu').init)(jax.random.key(0), clips[:, :4])['params']
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: np.float32(x + 0.05 * rng.normal(size=x.shape)), made)


def encode(params, mel, frames=FRAMES, **options):
    return jax.jit(WhisperEncoder('mu', **options).apply)({'params': params}, mel, frames)


def test_masked_clips_are_the_same_in_any_bucket(params, clips):
    """Every intermediate of a clip in f32, and its gradient: nothing behind the end is heard."""
    short = encode(params, clips, masked=True)
    longer = np.pad(clips, ((0, 0), (0, 130), (0, 0)), constant_values=-3.0)
    long = encode(params, longer, masked=True)
    alone = [encode(params, mel[None, :n], None, masked=True) for mel, n in zip(clips[:2], FRAMES)]
    assert np.abs(short['pooled'] - long['pooled']).max() <= 1e-5
    for row, one in enumerate(alone):
        assert np.abs(one['pooled'] - short['pooled'][row]).max() <= 1e-5
        count = one['tokens'].shape[1]
        assert np.abs(one['tokens'][0] - short['tokens'][row, :count]).max() <= 1e-4
        assert short['frame_mask'][row].sum() == count == -(-FRAMES[row] // 2)

    def total(mel):
        out = WhisperEncoder('mu', masked=True).apply({'params': params}, mel, FRAMES)
        return jnp.sum(out['pooled'] ** 2)

    gradient = np.asarray(jax.jit(jax.grad(total))(clips))
    valid = np.arange(64) < FRAMES[:, None]
    assert np.abs(gradient[valid]).min() > 0
    assert np.abs(gradient[~valid]).max() == 0


def test_without_a_mask_silence_counts_but_is_not_pooled(params, clips):
    """As published: the frames behind a clip change it; the mean is over its own."""
    outputs = encode(params, clips)
    other = encode(params, np.where(clips == 5.0, -1.0, clips))
    assert np.abs(outputs['pooled'] - other['pooled'])[1:].max() > 1e-3
    tokens = np.asarray(outputs['tokens'][1, : FRAMES[1] // 2])
    np.testing.assert_allclose(outputs['pooled'][1], tokens.mean(axis=0), atol=1e-5)
    assert encode(params, clips, frames=None)['frame_mask'].all()


def test_positions_start_as_sinusoids():
    """The first are those that OpenAI's formula gives (written out), and windows take them."""
    mel = jnp.zeros((1, 4, 80))
    table = jax.jit(WhisperEncoder('mu').init)(jax.random.key(0), mel)['params']
    table = np.asarray(table['position_embedding']['embedding'])
    assert table.shape == (1500, 64)
    for position, column in ((0, 0), (3, 0), (7, 31), (1499, 5)):
        angle = position * 10_000 ** (-column / 31)
        np.testing.assert_allclose(table[position, column], np.sin(angle), atol=1e-4)
        np.testing.assert_allclose(table[position, 32 + column], np.cos(angle), atol=1e-4)


def test_what_does_not_fit_is_named():
    def shapes(variant, *shape):
        jax.eval_shape(WhisperEncoder(variant).init, jax.random.key(0), jnp.zeros(shape))

    with pytest.raises(ValueError, match='takes 80 mel bins, not 128'):
        shapes('tiny', 1, 4, 128)
    with pytest.raises(ValueError, match='3001 frames; the encoder has positions for 3000'):
        shapes('tiny', 1, 3001, 80)
    with pytest.raises(ConfigError, match="Did you mean 'tiny'"):
        shapes('tiy', 1, 4, 80)
