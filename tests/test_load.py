"""alm_jax.load on a random tiny run: shapes, equal bits, and errors that say what to do."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile

import alm_jax
from alm_jax.adapters.lora import Lora
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.load import complete_steps, load, load_run


@pytest.fixture(scope='module')
def clip(recordings):
    return soundfile.read(recordings / 'doors_door_open.ogg', dtype='float32')


def test_audio_embeddings_are_unit_norm_and_the_same_alone_and_in_a_list(model, recordings, clip):
    waveform, rate = clip
    other = soundfile.read(recordings / 'fire_small.ogg', dtype='float32')[0]
    alone = model.embed_audio(waveform, sampling_rate=rate)
    both = model.embed_audio([other, waveform], sampling_rate=rate)
    assert alone.shape == (1, 16)
    assert both.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
    assert (both[1] == alone[0]).all()
    assert not np.allclose(both[0], both[1], atol=1e-3)


def test_a_batch_is_its_rows(model, clip):
    waveform, rate = clip
    half = len(waveform) // 2
    batch = np.stack([waveform[:half], waveform[half : 2 * half]])
    rows = [model.embed_audio(row, sampling_rate=rate)[0] for row in batch]
    assert (model.embed_audio(batch, sampling_rate=rate) == np.stack(rows)).all()


def test_int16_and_float_agree(model, clip):
    waveform, rate = clip
    pcm = np.round(waveform * 32767).astype(np.int16)
    a, b = (model.embed_audio(x, sampling_rate=rate) for x in (pcm, pcm / np.float32(32768)))
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_text_embeddings(model):
    embedded = model.embed_text(['a dog barks', 'rain', 'a dog barks'])
    assert embedded.shape == (3, 16)
    assert (embedded[0] == embedded[2]).all()
    assert not np.allclose(embedded[0], embedded[1], atol=1e-3)
    assert (model.embed_text('rain') == model.embed_text(['rain'])).all()


@pytest.mark.parametrize(
    ('waveform', 'rate', 'message'),
    [
        (np.zeros(0, np.float32), 16000, 'shape'),
        (np.array([0.1, np.nan], np.float32), 16000, 'NaN'),
        (np.full(100, 20000.0), 16000, r'\[-1, 1\]'),
        (np.zeros(100, np.int64), 16000, 'int64'),
        (np.zeros((1, 2, 50), np.float32), 16000, 'shape'),
        (np.zeros((0, 50), np.float32), 16000, 'no clip'),
        ([np.zeros(9, np.float32), np.zeros(0, np.float32)], 16000, 'clip 1'),
        (np.zeros(100, np.float32), 0, 'sampling_rate'),
        (np.zeros(100, np.float32), 44.1, 'sampling_rate'),
    ],
)
def test_bad_audio_is_an_error(model, waveform, rate, message):
    with pytest.raises(AudioError, match=message):
        model.embed_audio(waveform, sampling_rate=rate)


@pytest.mark.parametrize('texts', [[], [''], [3], ['dog', None]])
def test_bad_text_is_an_error(model, texts):
    with pytest.raises(ConfigError, match='embed_text'):
        model.embed_text(texts)


def test_two_towers_take_gradients_in_adapters_alone(model):
    """Stacked layers of both towers and their projections; the run's parameters stay."""
    lora = Lora((r'attn/query/kernel', r'projection/linear/kernel'), rank=2)
    adapters = jax.jit(lora.init)(jax.random.key(0), model.params)
    assert set(adapters) == {'audio', 'text', 'audio_projection', 'text_projection'}
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    tokens = np.array([[2, 5, 6, 3]])

    @jax.jit
    @jax.grad
    def gradient(adapters):
        params = lora.apply(model.params, adapters)
        return model.predictors.embed_tokens(params, model.extra, tokens, tokens > 0)[0, 0]

    found = gradient(adapters)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(found['text']))
    assert all(np.abs(x).max() == 0 for x in jax.tree.leaves(found['audio']))


def test_steps_and_checkpoint_folders(model, tiny_run):
    assert complete_steps(tiny_run) == [1, 2]
    assert model.step == 2
    first = load(tiny_run / 'checkpoints' / '1')
    assert first.step == load(tiny_run, 1).step == 1
    assert first.checkpoint_sha256 != model.checkpoint_sha256
    text = ['rain']
    assert not np.allclose(first.embed_text(text), model.embed_text(text), atol=1e-3)


def test_a_misspelt_path_lists_what_is_there(tiny_run):
    with pytest.raises(ConfigError, match=r"does not exist. Did you mean 'tiny'\?.*: tiny\."):
        load(tiny_run.parent / 'tinny')
    with pytest.raises(ConfigError, match=r'no config\.json \(it has tokenizer\.json\)'):
        load(tiny_run / 'tokenizer')
    with pytest.raises(ConfigError, match='Steps there: 2, 1'):
        load(tiny_run, 7)


def test_what_is_neither_a_run_nor_a_model(tiny_run, tmp_path):
    (tmp_path / 'config.json').write_text('{"epochs": 3}')
    with pytest.raises(ConfigError, match=r'config\.json is neither of a run nor .*only epochs'):
        load(tmp_path)
    (tmp_path / 'config.json').write_text('{"model_type": ')
    with pytest.raises(ConfigError, match=r'config\.json: not JSON'):
        load(tmp_path)
    (tmp_path / 'config.json').write_text('{"model_type": "bart"}')
    with pytest.raises(ConfigError, match=r"config\.json: model_type 'bart'.*Did you mean 'bert'"):
        load(tmp_path)
    with pytest.raises(ConfigError, match='has no steps'):
        load(tmp_path, 3)
    with pytest.raises(ConfigError, match=r'is a pretrained model \(bart\), not a run'):
        load_run(tmp_path)
    (tmp_path / 'model.pt').write_bytes(b'')
    with pytest.raises(ConfigError, match=r'is a file.*interop\.from_torch'):
        load(tmp_path / 'model.pt')
    saved = tmp_path / 'saved'
    saved.mkdir()
    (saved / 'saved_model.pb').write_bytes(b'')
    with pytest.raises(ConfigError, match=r'is a SavedModel: use python -m alm_jax\.interop conv'):
        load(saved)


def test_alm_jax_load_can_be_called_in_any_order_of_imports(tiny_run):
    assert alm_jax.load(tiny_run, 1).step == 1
    code = f'import alm_jax; a = alm_jax.load({str(tiny_run)!r}); b = alm_jax.load(a.workdir, 1)'
    subprocess.run([sys.executable, '-c', code], check=True)
