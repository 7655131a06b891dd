"""The rules of splits.py, on clips made for one rule each."""

import collections
import dataclasses
import pathlib

import numpy as np
import pytest

from alm_jax.data.catalog.packaged_sounds import splits
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.decoding import Recording
from alm_jax.data.hygiene import fingerprint


def _clip(package, member, kind='sound', **text) -> Clip:
    group = text.pop('group', f'{package}/{member}')
    return Clip(package, member, read=None, kind=kind, group=group, title='', licence='', **text)


def _placed(clip: Clip, split: str, pcm: np.ndarray, folder: pathlib.Path) -> splits.Placed:
    levels = fingerprint.picture(pcm, 16000)
    path = folder / f'{clip.package}-{clip.member}.json'
    path.with_suffix('.bands').write_bytes(levels.tobytes())
    recording = Recording(
        clip, 16000, len(pcm), str(hash(pcm.tobytes())), '', path, 0, 0, len(levels)
    )
    return splits.Placed(recording, split, clip.group, ('A sound.',), '')


def test_a_concept_of_the_held_out_language_is_test_in_every_language():
    clips = [
        _clip('tuxpaint', f'{i}_{language}', 'speech', group=f'tuxpaint/{i}', language=language,
              transcript=f'{language} words {i}', translation=f'words {i}')
        for i in range(40)
        for language in ('fr', 'nl' if i < 5 else 'ru')
    ]  # fmt: skip
    split = {clip.member: s for clip, (s, _) in zip(clips, splits.assign(clips))}
    assert all(split[f'{i}_fr'] == split[f'{i}_nl'] == 'test' for i in range(5))
    assert sum(split[f'{i}_fr'] == 'train' for i in range(5, 40)) > 25


def test_packages_that_say_the_same_share_a_side():
    clips = [
        _clip('asterisk', f'a{i}', 'speech', language='en', transcript=f'Number {i}.')
        for i in range(50)
    ]
    for i in range(50):
        said = {'transcript': f'No {i}', 'translation': f'number {i}'}
        clips.append(_clip('tuxpaint', f't{i}', 'speech', language='fr', **said))
    assigned = splits.assign(clips)
    assert assigned[:50] == assigned[50:]
    assert {split for split, _ in assigned} == set(splits.SPLITS)


@pytest.mark.parametrize(
    ('fonts', 'expected'),
    [(('timgm6mb',), ['train', 'test']), (('timgm6mb', 'fluid'), ['validation', 'train', 'test'])],
)
def test_soundfonts_train_and_real_instruments_test(fonts, expected):
    clips = [_clip(package, 'piano', 'instrument') for package in (*fonts, 'gcompris')]
    assert [split for split, _ in splits.assign(clips)] == expected


def test_sounds_split_by_recording_at_about_15_percent():
    clips = [_clip('ufoai', f'{i}_{cut}', group=f'ufoai/{i}') for i in range(400) for cut in 'ab']
    assigned = splits.assign(clips)
    assert assigned[::2] == assigned[1::2]
    assert 0.1 < sum(split == 'validation' for split, _ in assigned) / len(clips) < 0.2
    assert {split for split, _ in splits.assign([_clip('minetest', 'x')])} == {'test'}


def test_the_training_copy_of_a_test_recording_is_dropped_and_counted(tmp_path):
    rng = np.random.Generator(np.random.Philox(1))
    envelope = np.repeat(rng.uniform(0, 1, 40), 800)
    noise = (8000 * envelope * rng.standard_normal(32000)).clip(-32768, 32767).astype(np.int16)
    other = (8000 * envelope[::-1] * rng.standard_normal(32000)).astype(np.int16)
    items = [
        _placed(_clip('ufoai', 'equal'), 'train', noise, tmp_path),
        _placed(_clip('ufoai', 'quiet cut'), 'validation', noise[3000:] // 3, tmp_path),
        _placed(_clip('ufoai', 'other'), 'train', other, tmp_path),
        _placed(_clip('minetest', 'original'), 'test', noise, tmp_path),
    ]
    dropped = collections.Counter()
    kept = splits.without_duplicates(items, dropped)
    assert [item.recording.clip.member for item in kept] == ['other', 'original']
    assert dropped == {
        'ufoai: same recording twice': 1,
        'ufoai: near-duplicate of a test recording (validation)': 1,
    }


def test_what_mentions_an_unseen_class_leaves_training_only(tmp_path):
    noise = np.arange(-4000, 4000, dtype=np.int16)
    train = _placed(_clip('ufoai', 'a'), 'train', noise, tmp_path)
    train = dataclasses.replace(train, captions=('A locomotive.',))
    test = dataclasses.replace(train, split='test')
    fine = dataclasses.replace(train, captions=('A dog.',))
    dropped = collections.Counter()
    kept = splits.keep_unseen_apart(
        [train, test, fine], lambda text: 'locomotive' in text, {'train'}, dropped
    )
    assert kept == [test, fine]
    assert sum(dropped.values()) == 1


def test_leaks_are_seen(tmp_path):
    noise = np.arange(-4000, 4000, dtype=np.int16)
    clip = _clip('asterisk', 'a', 'speech', language='en', transcript='Yes.')
    items = [_placed(clip, split, noise, tmp_path) for split in ('train', 'test')]
    assert all(splits.leaks(items).values())
    assert not any(splits.leaks(items[:1]).values())
