"""embed, search and classify as a user runs them, on real recordings."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from alm_jax import classify, embed, search
from alm_jax.audio import resample, windows
from alm_jax.config import ConfigError
from alm_jax.load import load
from alm_jax.training import manifest


def program(name, *arguments, cwd=None):
    command = [sys.executable, '-m', f'alm_jax.{name}', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture(scope='module')
def index(tmp_path_factory, model, recordings):
    out = tmp_path_factory.mktemp('index') / 'emb.parquet'
    assert embed.embed(model, embed.from_files([str(recordings)]), out) == 17
    return out


def test_rows_are_the_embeddings_of_the_files(index, model, recordings):
    table, metadata = search.read_index(index)
    assert table.schema.field('embedding').type.list_size == 16
    assert str(table.schema.field('embedding').type.value_type) == 'float'
    assert metadata['checkpoint_sha256'] == model.checkpoint_sha256
    assert metadata['front_end_sha256'] == model.front_end_sha256
    rows = table.to_pylist()
    assert [row['path'] for row in rows] == sorted(str(p) for p in recordings.glob('*.ogg'))
    for row in rows[:3]:
        waveform, rate = soundfile.read(row['path'], dtype='float32')
        assert row['duration'] == pytest.approx(len(waveform) / rate)
        mono = waveform if waveform.ndim == 1 else waveform.mean(axis=1)
        expected = model.embed_audio(mono, sampling_rate=rate)[0]
        assert (np.array(row['embedding'], np.float32) == expected).all()


def test_a_bad_file_is_named_and_the_rest_is_embedded(tmp_path, tiny_run, recordings):
    for name in ('fire_small.ogg', 'fire_large.ogg'):
        shutil.copy(recordings / name, tmp_path)
    (tmp_path / 'text.wav').write_text('this is no sound')
    soundfile.write(tmp_path / 'click.wav', np.ones(3), 44100)
    (tmp_path / 'notes.txt').write_text('left out: no audio suffix')
    done = program('embed', tmp_path, '--workdir', tiny_run, '--out', tmp_path / 'e.parquet')
    assert done.returncode == 1
    assert '2 clips embedded' in done.stdout
    assert '2 could not be read' in done.stderr
    assert re.search(r'text\.wav cannot be decoded', done.stderr)
    assert re.search(r'click\.wav is 0\.0001 s long', done.stderr)
    assert 'Traceback' not in done.stderr
    assert pq.read_table(tmp_path / 'e.parquet').num_rows == 2
    assert not list(tmp_path.glob('.e.parquet*'))


def test_a_folder_with_captions(tmp_path, model, recordings, index):
    clips = embed.from_data(str(recordings), 'captions.csv')
    embed.embed(model, clips, tmp_path / 'e.parquet')
    rows = pq.read_table(tmp_path / 'e.parquet').to_pylist()
    by_name = {row['path'].rsplit('/')[-1]: row for row in pq.read_table(index).to_pylist()}
    assert len(rows) == 17
    for row in rows:
        assert row['caption'].startswith('The sound of ')
        # PCM of 16 bits against the decoder's floats
        np.testing.assert_allclose(row['embedding'], by_name[row['path']]['embedding'], atol=1e-3)


def test_search_ranks_by_cosine(index, model):
    table, _ = search.read_index(index)
    found = search.search(model, table, 'breaking glass', top=5)
    text = model.embed_text('breaking glass')[0].astype(float)
    scores = {r['path']: float(np.dot(r['embedding'], text)) for r in table.to_pylist()}
    best = sorted(scores, key=lambda path: (-scores[path], path))[:5]
    assert [row['path'] for row in found] == best
    assert found[0]['score'] == pytest.approx(scores[best[0]], abs=1e-6)


def test_search_as_a_program_and_only_with_the_checkpoint_of_the_index(index, tiny_run, tmp_path):
    done = program('search', 'a door', '--index', index, '--top', 3)  # the index names its run
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    other = tmp_path / 'other'
    shutil.copytree(tiny_run, other)
    shutil.rmtree(other / 'checkpoints' / '2')
    shutil.copytree(other / 'checkpoints' / '1', other / 'checkpoints' / '2')
    entries = manifest.read_manifest(other / 'checkpoints' / '2') | {'step': 2}
    del entries[manifest.SHA256]
    (other / 'checkpoints' / '2' / manifest.MANIFEST).unlink()
    manifest.complete(other / 'checkpoints' / '2', entries)
    done = program('search', 'a door', '--index', index, '--workdir', other)
    assert done.returncode == 2
    assert 'was made by checkpoint' in done.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['embed'], 'give files or folders'),
        (['embed', 'no_such.wav', '--workdir', 'x'], 'no_such.wav does not exist'),
        (['embed', 'tests/conftest.py'], 'give --workdir'),
        (['search'], 'give what to search for'),
        (['search', 'rain', '--index', 'setup.py'], 'cannot be read as parquet'),
        (['classify'], 'give one audio file'),
        (
            ['classify', 'setup.py', '--workdir', 'x', '--labels', 'a,b'],
            'setup.py cannot be decoded',
        ),
    ],
)
def test_a_mistake_is_one_screen_and_exit_code_2(arguments, message):
    done = program(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_nothing_to_embed(tmp_path, model):
    with pytest.raises(ConfigError, match='no audio in'):
        embed.from_files([str(tmp_path)])
    (tmp_path / 'a.wav').write_bytes(b'')
    with pytest.raises(ConfigError, match=r'no clip could be read:\n.*is empty'):
        embed.embed(model, embed.from_files([str(tmp_path)]), tmp_path / 'e.parquet')
    with pytest.raises(ConfigError, match='does not exist'):
        embed.embed(model, embed.from_files([__file__]), tmp_path / 'no' / 'e.parquet')


def test_sliding_windows_cover_the_clip():
    assert windows.sliding(10, 4, 3) == [(0, 4), (3, 7), (6, 10)]
    assert windows.sliding(11, 4, 3) == [(0, 4), (3, 7), (6, 10), (7, 11)]
    assert windows.sliding(3, 4, 2) == [(0, 3)]


def test_classify_gives_shares_over_time_and_a_picture(tmp_path, tiny_run, recordings):
    arguments = ['--workdir', tiny_run, '--labels', 'door, fire,rain', '--hop', 0.25]
    done = program('classify', recordings / 'fire_large.ogg', *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:-1]]
    for row in rows:
        shares = [float(value) for value in row[3:6]]
        assert sum(shares) == pytest.approx(1, abs=2e-3)
        assert row[6] == ['door', 'fire', 'rain'][int(np.argmax(shares))]
    seconds = soundfile.info(recordings / 'fire_large.ogg').duration
    assert float(rows[-1][2]) == pytest.approx(seconds, abs=0.01)
    assert (tmp_path / 'fire_large_labels.png').read_bytes().startswith(b'\x89PNG')


def test_scores_follow_the_sound_in_time(model, recordings):
    """Two recordings in a row score as each does alone, where a window holds only one of them."""
    parts, rate = [], 16000
    for name in ('fire_large', 'default_water_footstep.1'):
        waveform, own_rate = soundfile.read(recordings / f'{name}.ogg', dtype='float32')
        waveform = resample.resample(waveform, own_rate, rate)
        parts.append(np.resize(waveform, rate))  # one second each
    labels = ['fire', 'water']
    _, both = classify.classify(model, np.concatenate(parts), rate, labels, 1.0, 1.0)
    alone = [classify.classify(model, part, rate, labels, 1.0, 1.0)[1][0] for part in parts]
    np.testing.assert_array_equal(both, alone)
    assert abs(both[0, 0] - both[1, 0]) > 1e-4


@pytest.mark.parametrize(
    ('labels', 'window', 'hop', 'message'),
    [
        (['dog'], 1.0, 0.5, 'two or more'),
        (['dog', 'dog'], 1.0, 0.5, 'two or more'),
        (['dog', 'cat'], 9.0, 0.5, 'the model takes'),
        (['dog', 'cat'], 1.0, 2.0, '--hop'),
    ],
)
def test_classify_mistakes(model, labels, window, hop, message):
    with pytest.raises(ConfigError, match=message):
        classify.classify(model, np.ones(16000, np.float32), 16000, labels, window, hop)


def test_an_index_of_one_step_is_searched_with_that_step(tmp_path, tiny_run, recordings):
    first = load(tiny_run, 1)
    clips = embed.from_files([str(recordings / 'fire_small.ogg')])
    embed.embed(first, clips, tmp_path / 'e.parquet')
    _, metadata = search.read_index(tmp_path / 'e.parquet')
    assert search.model_of('e.parquet', metadata).step == 1
