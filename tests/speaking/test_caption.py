"""caption as a user runs it, on a small random model: what is said matters less than how."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from alm_jax import caption
from alm_jax.audio import windows
from alm_jax.config import ConfigError
from alm_jax.data import audio_files
from alm_jax.decoding.sampling import Sampling
from alm_jax.interop.family import Pretrained
from alm_jax.load import load
from alm_jax.speaking import batch as batch_lib
from alm_jax.speaking.batch import Batch
from alm_jax.speaking.shard import Order, captions

RATE = 16_000


def order(**given):
    defaults = {'prompt': 'the dog ?', 'max_tokens': 6, 'sampling': Sampling(), 'seconds': 2.0}
    return Order(**{**defaults, 'batch_size': 2, **given})


def manifest(folder, names, suffix='.csv', **columns):
    rows = [{'file': name, **{k: v[i] for k, v in columns.items()}} for i, name in enumerate(names)]
    path = folder / f'list{suffix}'
    if suffix == '.csv':
        lines = [','.join(rows[0]), *(','.join(map(str, row.values())) for row in rows)]
        path.write_text('\n'.join(lines) + '\n')
    elif suffix == '.jsonl':
        path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def batch_of(speaker, path, out, noises, **options):
    asked = order(**options.pop('order', {}))
    return Batch(speaker, asked, path, out, noises, options.pop('files_per_shard', 4))


def test_files_and_answers_about_them(run, audio_lm, noises):
    files = [noises / '3.wav', noises / '7.wav']
    arguments = ('--checkpoint', audio_lm, '--prompt', 'the dog ?', '--max_tokens', 6)
    done = run('caption', *files, *arguments)
    assert done.returncode == 0, done.stderr
    lines = [line.split('\t') for line in done.stdout.splitlines()]
    assert [file for file, _ in lines] == list(map(str, files))
    assert lines[0][1] != lines[1][1]
    model = load(audio_lm)
    for file, text in lines:
        clip = soundfile.read(file, dtype='float32')[0]
        found = model.generate(clip, 'the dog ?', sampling_rate=RATE, max_tokens=6)
        assert found == [text]
        assert model.generate(clip, 'no cat ?', sampling_rate=RATE, max_tokens=6) != [text]


@pytest.mark.parametrize('slot', ['<audio>', '<|AUDIO|>'])
def test_places_in_prompts(speaker, audio_lm, noises, slot):
    """In front when there is none; several places take several files."""
    files = [str(noises / f'{i}.wav') for i in (3, 7)]

    def said(prompt, files=files):
        return [c['caption'] for c in caption.about_files(speaker, order(prompt=prompt), files)]

    assert said(f'{slot} the dog ?') == said('the dog ?')
    behind = said(f'the dog ? {slot}')
    assert len(behind) == 2
    assert behind != said('the dog ?')
    [both] = said(f'{slot} {slot} the dog ?')
    model = load(audio_lm)
    clips = [soundfile.read(file, dtype='float32')[0] for file in files]
    place = model.slot.format(model.place)
    prompt = f'{place} {place} the dog ?'
    assert model.generate(clips, prompt, sampling_rate=RATE, max_tokens=6) == [both]
    assert model.generate(clips[::-1], prompt, sampling_rate=RATE, max_tokens=6) != [both]
    with pytest.raises(ConfigError, match='2 places for audio: give 2 files'):
        said(f'{slot} {slot} the dog ?', files[:1])


def test_long_files_have_a_policy(run, audio_lm, tmp_path):
    """The beginning is heard and that is said; or all of it, in windows."""
    rng = np.random.default_rng(0)
    long = tmp_path / 'long.wav'
    soundfile.write(long, 0.1 * rng.standard_normal(RATE * 7), RATE)
    done = run('caption', long, '--checkpoint', audio_lm, '--max_tokens', 4)
    assert 'long.wav: heard the first 2 s of 7.0 s; see --every_seconds.' in done.stderr
    clip = soundfile.read(long, dtype='float32')[0][: 2 * RATE]
    prompt = 'Describe what can be heard.'
    [text] = load(audio_lm).generate(clip, prompt, sampling_rate=RATE, max_tokens=4)
    assert done.stdout == f'{long}\t{text}\n'
    more = ('--max_tokens', 4, '--every_seconds', 1.5)
    done = run('caption', long, '--checkpoint', audio_lm, *more)
    assert done.returncode == 0, done.stderr
    times = [line.split('\t')[1] for line in done.stdout.splitlines()]
    assert times == ['0.00-1.50', '1.50-3.00', '3.00-4.50', '4.50-6.00', '5.50-7.00']
    assert 'heard the first' not in done.stderr


def test_an_hour_is_not_decoded_for_its_first_seconds(tmp_path):
    soundfile.write(tmp_path / 'hour.flac', np.zeros(3600 * 8000, np.int16), 8000)
    [heard] = audio_files.excerpts(tmp_path / 'hour.flac', longest=30.0)
    assert (heard.seconds, heard.total, heard.start) == (30.0, 3600.0, 0.0)
    last = list(audio_files.excerpts(tmp_path / 'hour.flac', longest=30.0, every=700.0))[-1]
    assert (last.seconds, last.start) == (30.0, 3570.0)


def test_excerpts_are_the_file(noises):
    whole, _ = soundfile.read(noises / '9.wav', dtype='float32')
    parts = list(audio_files.excerpts(noises / '9.wav', every=0.5))
    for part, (start, end) in zip(parts, windows.sliding(len(whole), 8000, 8000), strict=True):
        np.testing.assert_array_equal(part.waveform, whole[start:end])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], r'give audio files, or --manifest'),
        (['no_such.wav'], 'no_such.wav does not exist'),
        (['setup.py', '--checkpoint', 'x'], 'setup.py cannot be decoded as audio'),
        (['{noises}/3.wav'], 'give --checkpoint'),
        (['{noises}/3.wav', '--checkpoint', 'nowhere'], 'nowhere does not exist'),
        (['{noises}/3.wav', '--checkpoint', '{run}'], 'embeds audio and text and writes nothing'),
        (['{noises}/3.wav', '--checkpoint', '{lm}', '--temperature=-1'], 'sampling.temperature'),
        (['{noises}/3.wav', '--checkpoint', '{lm}', '--every_seconds=0.01'], 'at least 0.1'),
        (['{empty}', '--checkpoint', '{lm}'], 'is empty'),
        (['--manifest', 'no.csv', '--checkpoint', '{lm}'], 'no.csv does not exist'),
        (['--manifest', 'setup.py', '--checkpoint', '{lm}'], 'must be one of .csv, .jsonl'),
    ],
)
def test_a_mistake_is_one_screen_and_exit_code_2(
    run, arguments, message, noises, audio_lm, tiny_run, tmp_path
):
    (tmp_path / 'empty.wav').write_bytes(b'')
    places = {'noises': noises, 'lm': audio_lm, 'run': tiny_run, 'empty': tmp_path / 'empty.wav'}
    done = run('caption', *(str(argument).format(**places) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert re.search(message, done.stderr)
    assert 'Traceback' not in done.stderr


def test_bad_files_are_named_and_the_rest_is_captioned(run, audio_lm, noises, tmp_path):
    shutil.copy(noises / '3.wav', tmp_path / 'sound.txt')  # the content counts, not the name
    (tmp_path / 'text.wav').write_text('this is no sound')
    soundfile.write(tmp_path / 'short.wav', np.ones(200), RATE)  # no vector of audio
    files = [tmp_path / name for name in ('sound.txt', 'text.wav', 'short.wav')]
    done = run('caption', *files, '--checkpoint', audio_lm, '--max_tokens', 3)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert '2 could not be captioned' in done.stderr
    assert 'text.wav cannot be decoded' in done.stderr
    assert 'too short' in done.stderr


def test_models_that_do_not_hear_are_told_apart(monkeypatch, tmp_path):
    from alm_jax.speaking import speaker

    class TextOnly(Pretrained):
        def generate(self, prompts):
            return prompts

    for kind, message in ((TextOnly, 'hears nothing'), (Pretrained, 'writes nothing')):
        model = kind(tmp_path, {}, None, None, None)
        monkeypatch.setattr(speaker, 'load', lambda path, step, model=model: model)
        with pytest.raises(ConfigError, match=message):
            speaker.load_speaker(tmp_path)


def test_draws_are_told_by_seed_and_file(speaker, noises):
    """Whatever else is in the batch."""
    drawn = order(sampling=Sampling(temperature=1.0, seed=5), max_tokens=12)
    entries = [(f'{i}.wav', 'the dog ?') for i in range(6)]
    together = [c['caption'] for c in captions(speaker, drawn, entries, noises)]
    alone = [c['caption'] for e in entries for c in captions(speaker, drawn, [e], noises)]
    assert together == alone
    again = [('./3.wav', 'the dog ?')]
    assert together[3] != next(captions(speaker, drawn, again, noises))['caption']
    other = order(sampling=Sampling(temperature=1.0, seed=6), max_tokens=12)
    assert together != [c['caption'] for c in captions(speaker, other, entries, noises)]


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl', '.parquet'])
def test_manifests(speaker, noises, tmp_path, suffix):
    names = [f'{i}.wav' for i in (4, 2, 9, 2, 5)]
    prompts = ['the cat ?', '', '', 'no ?', '']
    path = manifest(tmp_path, names, suffix, prompt=prompts)
    out = tmp_path / 'captions.parquet'
    assert batch_of(speaker, path, out, noises).run() == (5, 0)
    rows = pq.read_table(out).to_pylist()
    assert [row['file'] for row in rows] == names
    assert [row['prompt'] for row in rows] == [p or 'the dog ?' for p in prompts]
    for row in rows:
        [alone] = captions(speaker, order(batch_size=1), [(row['file'], row['prompt'])], noises)
        assert row['caption'] == alone['caption']
        assert row['seconds'] == pytest.approx(soundfile.info(noises / row['file']).duration)
        assert row['checkpoint_sha256'] == speaker.checkpoint_sha256
        assert json.loads(row['sampling'])['max_tokens'] == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ['captions.parquet', path.name]


def test_bad_files_are_listed(speaker, noises, tmp_path):
    (tmp_path / 'empty.wav').write_bytes(b'')
    soundfile.write(tmp_path / 'short.wav', np.ones(200), RATE)
    names = ['1.wav', 'gone.wav', tmp_path / 'empty.wav', '2.wav', tmp_path / 'short.wav', '3.wav']
    prompts = ['', '', '', '<audio> <audio>', '', '']
    path = manifest(tmp_path, map(str, names), '.jsonl', prompt=prompts)
    batch = batch_of(speaker, path, tmp_path / 'c.parquet', noises)
    assert batch.run() == (2, 4)
    assert [row['file'] for row in pq.read_table(batch.out).to_pylist()] == ['1.wav', '3.wav']
    listed = [json.loads(line) for line in batch.quarantine.read_text().splitlines()]
    found = {os.path.basename(row['file']): row['problem'] for row in listed}
    assert list(found) == ['gone.wav', 'empty.wav', '2.wav', 'short.wav']
    expected = ('cannot be read', 'is empty', '2 places for audio', 'too short')
    assert all(map(str.__contains__, found.values(), expected)), found
    assert batch.run() == (2, 4)  # nothing is left to do


def test_when_nothing_can_be_heard_it_stops(speaker, noises, tmp_path):
    path = manifest(tmp_path, ['x.wav', 'y.wav'])
    with pytest.raises(ConfigError, match=r'not one of the first 2 files[^$]*x\.wav cannot be'):
        batch_of(speaker, path, tmp_path / 'c.parquet', noises).run()
    (tmp_path / 'none.csv').write_text('file\n')
    with pytest.raises(ConfigError, match='holds no row'):
        batch_of(speaker, tmp_path / 'none.csv', tmp_path / 'c.parquet', noises).run()


def test_what_was_made_otherwise_is_not_mixed(speaker, noises, tmp_path):
    path = manifest(tmp_path, ['1.wav'])
    batch_of(speaker, path, tmp_path / 'c.parquet', noises).run()
    with pytest.raises(ConfigError, match=r'made otherwise:\n  max_tokens: 6, now 7'):
        batch_of(speaker, path, tmp_path / 'c.parquet', noises, order={'max_tokens': 7}).run()
    manifest(tmp_path, ['2.wav'])
    with pytest.raises(ConfigError, match='manifest_sha256'):
        batch_of(speaker, path, tmp_path / 'c.parquet', noises).run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['c.parquet', path.name]


def test_one_job_at_a_time(speaker, noises, tmp_path):
    batch = batch_of(speaker, manifest(tmp_path, ['1.wav']), tmp_path / 'c.parquet', noises)
    with batch_lib._locked(batch.parts), pytest.raises(ConfigError, match='another program'):
        batch.run()
    assert batch.run() == (1, 0)


def test_finished_shards_are_kept(speaker, noises, tmp_path, monkeypatch):
    path = manifest(tmp_path, [f'{i}.wav' for i in range(10)])
    whole = batch_of(speaker, path, tmp_path / 'whole.parquet', noises)
    whole.run()
    batch = batch_of(speaker, path, tmp_path / 'c.parquet', noises)
    made, seen = batch_lib.captions, []

    def failing(speaker, order, entries, root):
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(entries)
        return made(speaker, order, entries, root)

    monkeypatch.setattr(batch_lib, 'captions', failing)
    with pytest.raises(KeyboardInterrupt):
        batch.run()
    assert [p.name for p in batch.parts.glob('*.parquet')] == ['000000.parquet']
    (batch.parts / '000001.parquet').write_bytes(b'half a file')  # as a crash of a machine leaves
    seen = [None] * 2
    monkeypatch.setattr(batch_lib, 'captions', failing)
    assert batch.run() == (10, 0)
    assert [len(entries) for entries in seen[2:]] == [4, 2]
    assert pq.read_table(batch.out).equals(pq.read_table(whole.out))
    assert not batch.parts.exists()


@pytest.mark.slow
def test_killed_and_started_again_by_several_processes(audio_lm, noises, tmp_path):
    """kill -9 in the middle; then two processes finish it, and it is what one alone makes."""
    path = manifest(tmp_path, [str(noises / f'{i % 10}.wav') for i in range(60)])
    arguments = ['--manifest', path, '--checkpoint', audio_lm, '--max_tokens', 5]
    arguments += ['--files_per_shard', 3, '--batch_size', 2]

    log = tmp_path / 'log'

    def start(out, *more):
        words = [*arguments, '--out', tmp_path / out, *more]
        command = [sys.executable, '-m', 'alm_jax.caption', *map(str, words)]
        with log.open('ab') as file:
            return subprocess.Popen(command, stdout=file, stderr=file)

    assert start('whole.parquet').wait() == 0, log.read_text()
    parts = tmp_path / 'c.parquet.parts'
    killed = start('c.parquet')
    while len(list(parts.glob('0*.parquet'))) < 3:
        assert killed.poll() is None, log.read_text()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = {part: part.stat().st_mtime_ns for part in parts.glob('0*.parquet')}
    assert len(kept) < 20
    with socket.socket() as free:
        free.bind(('localhost', 0))
        place = f'--coordinator_address=localhost:{free.getsockname()[1]}'
    both = [
        start('c.parquet', place, '--num_processes=2', f'--process_id={process}')
        for process in range(2)
    ]
    times = {}
    while any(process.poll() is None for process in both):
        with contextlib.suppress(FileNotFoundError):  # when they are joined
            times |= {part: part.stat().st_mtime_ns for part in kept}
        time.sleep(0.05)
    assert [process.wait() for process in both] == [0, 0], log.read_text()
    assert times == kept
    made, alone = (pq.read_table(tmp_path / name) for name in ('c.parquet', 'whole.parquet'))
    assert made.equals(alone)
