"""Leaks that are planted across datasets of real recordings are found, blocked and refused."""

import csv
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.data import index, record, sources
from alm_jax.data.hygiene import copies, fingerprint, leaks, neighbours, pictures, recordings, texts

_COPIES = 6


@pytest.fixture(scope='module')
def clips(packaged_tiny):
    """Different records of half a second and more, no two of one recording."""
    source = sources.open_source('packaged_sounds/tiny:train+test', packaged_tiny)
    source = source.where({'duration': {'min': 0.6, 'max': 8.0}})
    _, first = np.unique(source.columns['recording_hash'], return_index=True)
    return [source[int(i)] for i in np.random.default_rng(0).permutation(first)[:60]]


@pytest.fixture(scope='module')
def folders(clips, tmp_path_factory):
    """A training folder of 40 records, and one of 26 for evaluation, 6 of them copies."""
    folder = tmp_path_factory.mktemp('sounds')
    copied = [_changed(i, clip) for i, clip in enumerate(clips[:_COPIES])]
    whole = [(clip['audio'], clip['rate']) for clip in clips]
    return (
        _folder(folder / 'train', whole[:40], 'wav', [c['captions'][0] for c in clips[:40]]),
        _folder(
            folder / 'eval',
            copied + whole[40:],
            'flac',
            ['A copy of something.'] * (_COPIES - 1)
            + [clips[10]['captions'][0].upper()]  # the caption of another record
            + [clip['captions'][0] for clip in clips[40:]],
        ),
    )


def _changed(number, clip):
    """A copy: quieter, at another rate, through a codec, with its ends cut off."""
    pcm, rate = clip['audio'], clip['rate']
    if number % 2:
        pcm = pcm[int(0.05 * len(pcm)) : int(0.95 * len(pcm))]
    if number % 3 == 0:
        pcm, rate = soxr.resample(pcm, rate, 22_050 if rate != 22_050 else 16_000), 22_050
        rate = 22_050 if clip['rate'] != 22_050 else 16_000
    buffer = io.BytesIO()
    soundfile.write(buffer, (0.4 * pcm).astype(np.int16), rate, format='OGG', subtype='VORBIS')
    buffer.seek(0)
    return soundfile.read(buffer, dtype='int16')


def _folder(folder, audio, suffix, captions):
    folder.mkdir(parents=True)
    with (folder / 'captions.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['file', 'caption', 'recording_id', 'split'])
        for number, ((pcm, rate), caption) in enumerate(zip(audio, captions)):
            name = f'{folder.name}-{number:02}.{suffix}'
            soundfile.write(folder / name, pcm, rate)
            writer.writerow([name, caption, f'{folder.name}/{number}', 'test'])
    return f'folder:{folder}?captions=captions.csv'


@pytest.fixture(scope='module')
def opened(folders, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp('data')
    return [sources.open_source(name, data_dir) for name in folders]


def test_planted_copies_are_found_blocked_and_gone(folders, opened, tmp_path):
    train, evaluated = opened
    found = leaks.find(train, evaluated, folder=tmp_path, audio=True, workers=0)
    ids, sounds = found.levels
    assert ids.facts[0].startswith('0 of 40 records')
    # The recording, so that other cuts of it go too.
    assert set(sounds.blocked) == {f'train/{i}' for i in range(_COPIES)}
    assert re.search(r'train-00.wav sounds as eval-00.flac \(correlation [.\d]+\)', found.text())
    out = tmp_path / 'leaks.txt'
    found.write(out, made_by='a test')
    assert '# Made by: a test' in out.read_text()
    assert 'Same sound' in leaks.report_path(out).read_text()
    clean = sources.open_source({'name': folders[0], 'blocklists': (str(out),)}, tmp_path)
    assert len(clean) == 40 - _COPIES
    again = leaks.find(clean, evaluated, folder=tmp_path, audio=True, workers=0)
    assert again.blocked == ()


def test_the_command_writes_a_list_that_the_training_entry_takes(recordings, tmp_path):
    name = f'folder:{recordings}?captions=captions.csv'
    out = tmp_path / 'leaks.txt'
    command = [sys.executable, '-m', 'alm_jax.data', 'leaks', name, f'{name}&split=test']
    ran = subprocess.run(
        [*command, f'--out={out}', f'--data_dir={tmp_path}'], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert '17 of 17 records' in ran.stdout
    assert f'blocklist: {out} (10 ids)' in ran.stdout
    with pytest.raises(ConfigError, match='holds no record'):
        sources.open_source({'name': name, 'blocklists': (str(out),)}, tmp_path)


def test_copies_within_a_dataset_leave_their_first(clips, tmp_path):
    audio = [(clip['audio'], clip['rate']) for clip in clips[:12]]
    audio += [_changed(0, clips[3]), _changed(2, clips[3]), _changed(4, clips[7])]
    name = _folder(tmp_path / 'own', audio, 'wav', ['A sound.'] * 15)
    found = leaks.find(
        sources.open_source(name, tmp_path), folder=tmp_path, audio=True, text=True, workers=0
    )
    assert found.blocked == ('own-12.wav', 'own-13.wav', 'own-14.wav')
    assert '15 of 15 records' in found.levels[2].facts[0]
    assert found.levels[2].blocked == ()


def test_captions_are_reported_and_blocked_when_asked_alone(opened, tmp_path):
    train, evaluated = opened
    found = leaks.find(train, evaluated, folder=tmp_path, text=True, workers=0)
    assert found.blocked == ()
    facts = ' '.join(found.levels[1].facts)
    assert '--block_text' in facts
    found = leaks.find(train, evaluated, folder=tmp_path, text=True, block_text=True, workers=0)
    assert 'train-10.wav' in found.blocked
    assert all(name.startswith('train-') for name in found.blocked)


def test_fingerprints_on_processes_are_kept_and_read_once(opened, tmp_path):
    train = opened[0]
    made = pictures.make(train, tmp_path, workers=2)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob('*/*')}
    assert len(files) == 2
    again = pictures.make(train, tmp_path, workers=0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob('*/*')} == files
    whole = train[5]
    np.testing.assert_array_equal(made[5], fingerprint.picture(whole['audio'], whole['rate']))
    np.testing.assert_array_equal(again[5], made[5])
    assert set(made.owner.tolist()) == set(range(40))


def test_audio_that_cannot_be_decoded_is_counted(clips, tmp_path):
    audio = [(clip['audio'], clip['rate']) for clip in clips[:4]]
    name = _folder(tmp_path / 'own', audio, 'wav', ['A sound.'] * 4)
    whole = (tmp_path / 'own' / 'own-02.wav').read_bytes()
    source = sources.open_source(name, tmp_path)
    (tmp_path / 'own' / 'own-02.wav').write_bytes(whole[: len(whole) // 2])
    found = leaks.find(source, folder=tmp_path, audio=True, workers=0)
    assert '1 records of' in found.levels[1].facts[1]
    assert 'own-02.wav' in found.levels[1].facts[1]


def test_candidates_lose_no_copy_that_comparing_all_pairs_finds(clips):
    """Among few clips; a benchmark measures it among many."""
    originals = [fingerprint.picture(clip['audio'], clip['rate']) for clip in clips]
    changed = [fingerprint.picture(*_changed(i, clip)) for i, clip in enumerate(clips)]
    every = fingerprint.near_duplicates(changed, originals)
    own = {(match.query, match.reference) for match in every if match.query == match.reference}
    assert len(own) > 50
    held = pictures.Held([*originals[:20], *changed[:20]])
    within = {(match.query, match.reference) for match in copies.find(held, workers=0)}
    assert len(within & {(i, 20 + i) for i in range(20)}) >= 17
    assert all(query < reference for query, reference in within)
    found = copies.find(pictures.Held(changed), pictures.Held(originals), workers=0)
    assert len(own & {(match.query, match.reference) for match in found}) >= 0.97 * len(own)


def test_every_one_of_many_copies_is_found(clips):
    quieter = [
        fingerprint.picture((clips[0]['audio'] * gain).astype(np.int16), clips[0]['rate'])
        for gain in np.linspace(0.2, 1, 50)
    ]
    others = [fingerprint.picture(clip['audio'], clip['rate']) for clip in clips[1:20]]
    held = pictures.Held([*others, *quieter])
    found = copies.find(pictures.Held(quieter[-1:]), held, workers=0)
    assert {match.reference for match in found} >= set(range(19, 69))
    within = {(match.query, match.reference) for match in copies.find(held, workers=0)}
    assert {(i, j) for i in range(19, 69) for j in range(i + 1, 69)} <= within


def test_inverted_lists_find_what_is_near_among_many():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(34_000, pictures.DIMENSIONS))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rows = rng.permutation(len(unit))[:200]
    noise = rng.normal(size=(200, pictures.DIMENSIONS))
    near = unit[rows] + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)  # cosine 0.9
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    vectors, queries = (np.round(127 * x).astype(np.int8) for x in (unit, near))
    found = set()
    for i, j, cosine in neighbours.InvertedLists(vectors).pairs(queries, 0.65, 32):
        np.testing.assert_allclose(cosine, (near[i] * unit[j]).sum(axis=1), atol=0.05)
        found |= set(zip(i.tolist(), j.tolist()))
    # Noise has no clusters: of real patches, which have, it finds .995.
    assert len(found & set(enumerate(rows.tolist()))) >= 160


def _sources_of(**recording_ids):
    return {
        name: sources.Source(name, _Reader(index.Index.of(_records(name, ids))))
        for name, ids in recording_ids.items()
    }


def _records(name, recording_ids):
    for number, recording_id in enumerate(recording_ids):
        yield {**record.DEFAULTS, 'id': f'{name}/{number}', 'recording_id': recording_id}


class _Reader:
    """The index alone: no audio is read for what is tested with it."""

    def __init__(self, of):
        self.index = of

    def __len__(self):
        return len(self.index)


_NAMES = ['', '', *(f'r/{number}' for number in range(8))]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    train=st.lists(st.sampled_from(_NAMES), max_size=30),
    evaluated=st.lists(st.sampled_from(_NAMES), max_size=8),
    chosen=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_recordings_are_compared_as_sets(train, evaluated, chosen):
    opened = _sources_of(train=train, evaluated=evaluated)
    rows = np.flatnonzero(chosen[: len(train)]).astype(np.uint32)
    some = sources.Source('some', opened['train']._reader, rows)
    hashes = recordings.Hashes.of_source(opened['evaluated'])
    assert len(hashes) == len({text for text in evaluated if text})
    shared = {i for i, text in enumerate(train) if text and text in evaluated}
    assert recordings.rows_with(opened['train'], hashes).tolist() == sorted(shared)
    assert recordings.rows_with(some, hashes).tolist() == sorted(shared & set(rows.tolist()))
    of_some = [train[i] for i in rows.tolist()]
    named = [text for text in of_some if text]
    assert recordings.repeated(some) == (len(set(named)), len(named) - len(set(named)))
    assert recordings.without_name(some) == len(of_some) - len(named)


def test_a_run_that_trains_on_its_evaluation_is_refused(opened, recordings, tmp_path):
    train, evaluated = opened
    same = f'folder:{recordings}?captions=captions.csv&split=test'
    other = sources.open_source(same, tmp_path)
    leaks.check_declared([train], {'retrieval_test': evaluated, 'zero_shot': other})
    with pytest.raises(ConfigError) as raised:
        leaks.check_declared([train, other], {'retrieval_test': evaluated, 'zero_shot': other})
    message = str(raised.value)
    assert 'holds 17 records of 10 recordings' in message
    some = sources.Source('some', _Reader(index.Index.of(_records('some', ['r/1', 'fire_large']))))
    with pytest.raises(ConfigError, match=r"holds 1 records of 1 recordings .* share 'fire_large'"):
        leaks.check_declared([some], {'zero_shot': other})
    assert 'config.evals.zero_shot' in message
    assert "'default_break_glass', " in message
    assert 'data leaks TRAIN EVAL --out leaks.txt' in message
    assert '--config.data.allow_leaks=True' in message


def test_a_million_records_are_compared_in_stretches(million, monkeypatch):
    monkeypatch.setattr(recordings, '_PASS', 1 << 18)  # sorted in four shares
    train = sources.Source('million', _Reader(million))
    named = [f'recordings/{i}' for i in range(0, 2_000_000, 250)]  # half of them in train
    evaluated = _sources_of(evaluated=named)['evaluated']
    rows = recordings.rows_with(train, recordings.Hashes.of_source(evaluated))
    assert rows.tolist() == list(range(0, 1_000_000, 250))
    assert recordings.repeated(train) == (1_000_000, 0)
    with pytest.raises(ConfigError, match='holds 4000 records of 4000 recordings'):
        leaks.check_declared([train], {'test': evaluated})


def test_near_captions_are_those_of_the_same_words():
    mine = texts.Texts(
        enumerate(['A dog barks, twice.', 'Rain falls on a tin roof at night.', '', '雨が降る'])
    )
    other = texts.Texts(
        enumerate(
            [
                'a dog barks twice',
                'At night, rain falls on a tin roof!',
                'Rain falls on a roof',
                'A dog barks TWICE',
                '雨が降っている',
            ]
        )
    )
    assert len(mine) == 3
    assert [(mine.texts[i], other.texts[j]) for i, j in texts.same(mine, other)] == [
        ('A dog barks, twice.', 'a dog barks twice')
    ]
    assert other.records(0).tolist() == [0, 3]
    assert texts.alike(mine, other) == [(1, 1, 1.0)]
    assert texts.words('雨が降る') == ['雨', 'が', '降', 'る']


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_near_captions_are_what_comparing_all_sets_finds(seed):
    rng = np.random.default_rng(seed)
    vocabulary = [f'word{i}' for i in range(60)]
    first = [rng.choice(vocabulary, 10, replace=False) for _ in range(60)]
    second = [[*words[: 10 - number % 3], 'else'] for number, words in enumerate(first)]
    mine, other = (texts.Texts(enumerate(map(' '.join, side))) for side in (first, second))
    expected = {
        (i, j)
        for i in range(len(mine))
        for j in range(len(other))
        if len(mine.word_set(i) & other.word_set(j))
        >= texts.LEAST_JACCARD * len(mine.word_set(i) | other.word_set(j))
    }
    found = {(i, j) for i, j, _ in texts.alike(mine, other)}
    assert found <= expected
    assert len(found) >= 0.9 * len(expected)
    assert len(expected) >= 40
