"""Embeddings: the window policy, and the same bits whatever else is in the list."""

import weakref

import jax
import numpy as np
import pytest
import small_run

from alm_jax.audio.resample import resample
from alm_jax.tasks import build_task, predictors


@pytest.fixture(scope='module')
def model():
    task = build_task(small_run.make_config(), tokenizer=small_run.tokenizer())
    params, extra = jax.jit(lambda: task.init(jax.random.key(0), small_run.batch(0)))()
    return task, params, extra


def _audio(model, clips):
    task, params, extra = model
    return task.predictors.embed_audio(params, extra, clips)


def _text(model, texts):
    task, params, extra = model
    return task.predictors.embed_text(params, extra, texts)


def test_audio_bits_do_not_depend_on_the_list(model):
    clips = small_run.clips(40)  # some 60 windows: two batches
    whole = _audio(model, iter(clips))
    assert whole.shape == (40, 32)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    assert _audio(model, clips).tobytes() == whole.tobytes()
    assert _audio(model, clips[::-1])[::-1].tobytes() == whole.tobytes()
    for i in (0, 5, 17, 39):
        assert _audio(model, [clips[i]])[0].tobytes() == whole[i].tobytes()


def test_a_long_clip_is_the_mean_direction_of_its_windows(model):
    length = model[0].window_samples
    rng = np.random.default_rng(0)
    clip = rng.integers(-9000, 9000, 2 * length + length // 2 - 1).astype(np.int16)
    halves = _audio(model, [(clip[:length], 16000), (clip[length : 2 * length], 16000)])
    expected = halves.astype(np.float64).mean(axis=0)  # the rest is under half a window: dropped
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(_audio(model, [(clip, 16000)])[0], expected, atol=1e-7)
    longer = np.append(clip, clip[:1])
    assert np.abs(_audio(model, [(longer, 16000)])[0] - expected).max() > 1e-4


def test_other_rates_and_dtypes(model):
    clip = small_run.clips(1)[0][0]
    resampled = resample(clip, 22050, 16000)
    assert _audio(model, [(clip, 22050)]).tobytes() == _audio(model, [(resampled, 16000)]).tobytes()
    assert np.abs(_audio(model, [(clip, 22050)]) - _audio(model, [(clip, 16000)])).max() > 1e-4
    as_float = (clip / 32768).astype(np.float32)
    assert _audio(model, [(as_float, 16000)]).tobytes() == _audio(model, [(clip, 16000)]).tobytes()


def test_memory_does_not_grow_with_the_list(model):
    alive, most = weakref.WeakSet(), 0

    class Clip(np.ndarray):
        pass

    def many():
        nonlocal most
        for i in range(150):
            clip = np.full(800, i, np.int16).view(Clip)
            alive.add(_Token(clip))
            most = max(most, len(alive))
            yield clip, 16000
            del clip

    class _Token:
        def __init__(self, clip):
            clip.token = self  # lives as long as the clip

    assert len(_audio(model, many())) == 150
    assert most <= 2 * predictors.ROWS


def test_text_bits_do_not_depend_on_the_list(model):
    texts = ['a dog barks', 'rain falls', 'a dog barks twice near the old bridge while rain falls']
    texts = [f'{text} {word}' for text in texts for word in ('', 'near', 'dog', 'old')] * 4
    whole = _text(model, texts)
    assert whole.shape == (48, 32)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    assert _text(model, texts[::-1])[::-1].tobytes() == whole.tobytes()
    for i in (0, 8, 31, 47):
        assert _text(model, [texts[i]])[0].tobytes() == whole[i].tobytes()
    assert len(np.unique(whole, axis=0)) == 12


def test_nothing_to_embed(model):
    assert _audio(model, []).shape == (0, 0)
    assert _text(model, []).shape == (0, 0)
