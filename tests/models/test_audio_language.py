"""AudioLanguageModel's places for audio, masks and gradients.

Its numbers are in tests/interop/test_{qwen2_audio,audio_flamingo3,voxtral}_family.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.audio.whisper import Size, WhisperEncoder
from alm_jax.models.audio_language import AudioLanguageModel, put_audio
from alm_jax.models.connector import MlpConnector
from alm_jax.models.text import decoder

AUDIO = 59
TEXT = decoder.Size(24, 1, 2, 32, 60, attention_biases=('query', 'key', 'value'))
NUM_FRAMES = np.array([[16, 5], [0, 13]])  # 5 and 3 vectors


def build(**audio):
    encoder = WhisperEncoder(Size(16, 1, 2, mel_bins=8, positions=40), **audio)
    return AudioLanguageModel(encoder, MlpConnector(24, hidden=20), decoder.Decoder(TEXT), AUDIO)


def batch(model):
    rng = np.random.default_rng(0)
    mel = rng.standard_normal((2, 2, 16, 8)).astype(np.float32)
    ids = np.zeros((2, 12), np.int32)
    ids[0] = [5, *[AUDIO] * 4, 6, AUDIO, 7, 0, 0, 0, 0]
    ids[1] = [8, 9, *[AUDIO] * 3, 10, 11, 12, 0, 0, 0, 0]
    counts = model.num_vectors(NUM_FRAMES).sum(axis=1)
    assert counts.tolist() == (ids == AUDIO).sum(axis=1).tolist()
    return mel, NUM_FRAMES, ids, ids > 0


def test_the_vectors_stand_where_their_token_was():
    ids = jnp.array([[AUDIO, 3, AUDIO, 4, AUDIO], [5, 6, 7, AUDIO, 8]])
    vectors = jnp.arange(2 * 6).reshape(2, 6, 1)
    mask = jnp.array([[1, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]], bool)
    left, placed = put_audio(ids, AUDIO, vectors, mask)
    np.testing.assert_array_equal(left, [[-1, 3, -1, 4, -1], [5, 6, 7, -1, 8]])
    np.testing.assert_array_equal(placed[0, ::2, 0], [0, 3, 4])
    assert placed[1, 3, 0] == 8


@pytest.fixture(scope='module')
def results():
    """Outputs and gradients of a batch, and outputs of the same one with more of every padding."""
    model = build(masked=True, pool=2)
    mel, frames, ids, mask = batch(model)
    longer = np.pad(mel, ((0, 0), (0, 1), (0, 14), (0, 0)), constant_values=3.0)
    texts = (np.pad(a, ((0, 0), (0, 5))) for a in (ids, mask))
    more = (longer, np.pad(frames, ((0, 0), (0, 1))), *texts)

    @jax.jit
    def run(key):
        params = model.init(key, mel, frames, ids, mask)['params']

        def loss(params):
            outputs = model.apply({'params': params}, mel, frames, ids, mask)
            return jnp.sum(jnp.sin(3 * outputs['logits']) * mask[..., None]), outputs

        gradients, outputs = jax.grad(loss, has_aux=True)(params)
        return gradients, outputs, model.apply({'params': params}, *more)

    return (*run(jax.random.key(0)), mask)


def test_padding_of_windows_clips_and_texts_changes_nothing(results):
    _, outputs, longer, mask = results
    assert outputs['audio'].shape == (2, 2, 4, 24)
    np.testing.assert_allclose(
        longer['logits'][:, : mask.shape[1]][mask], outputs['logits'][mask], atol=1e-5
    )


def test_gradients_reach_every_parameter(results):
    for path, leaf in jax.tree_util.tree_leaves_with_path(results[0]):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # A key bias shifts all logits of a query alike: softmax cancels it.
        assert np.abs(leaf).max() > 1e-7 or "['key']['bias']" in name, name


@pytest.mark.parametrize(('pool', 'stack'), [(1, 4), (2, 3)])
def test_as_many_vectors_as_the_masks_say(pool, stack):
    encoder = WhisperEncoder(Size(16, 1, 2, mel_bins=8, positions=40), masked=True, pool=pool)
    model = AudioLanguageModel(encoder, MlpConnector(24, stack=stack), decoder.Decoder(TEXT), AUDIO)
    frames = np.arange(17)

    @jax.jit
    def mask(mel):
        outputs, _ = model.init_with_output(jax.random.key(0), mel, frames, method='listen')
        return outputs['audio_mask']

    counts = mask(np.zeros((17, 16, 8), np.float32)).sum(axis=1)
    np.testing.assert_array_equal(counts, model.num_vectors(frames))
    assert counts[-1] == 8 // (pool * stack)
