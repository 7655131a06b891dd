"""A plain folder tree of real recordings: classes from folders, texts from files beside them."""

import json
import os

import numpy as np
import pytest
from travelling import travelled

from alm_jax.audio import decode
from alm_jax.config import ConfigError
from alm_jax.data import sources
from alm_jax.data.inputs import headers


@pytest.fixture
def tree(recordings, tmp_path):
    """The seventeen recordings as class/NAME.ogg; the class is the first word of the name."""
    for path in recordings.glob('*.ogg'):
        folder = tmp_path / 'tree' / ('a_' + path.name.split('_')[0])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    return tmp_path / 'tree'


@pytest.fixture
def opened(tree, tmp_path):
    """opened(): the tree as a source; its listing lies beside it."""
    return lambda **options: sources.open_source({'tree': str(tree), **options}, tmp_path / 'data')


def test_a_folder_is_a_class_and_a_caption(tree, opened, tmp_path):
    source = opened()
    assert len(source) == 17
    assert set(source.columns['label']) == {'a default', 'a doors', 'a fire', 'a tnt'}
    for i in range(17):
        record = source[i]
        path = tree / record['id']
        x, rate = decode.decode(path)
        assert source.read(i)['audio'] == path
        assert (record['audio'] == decode.to_pcm16(x)).all()
        assert (source.columns['num_samples'][i], record['rate']) == (len(x), rate)
        assert record['captions'] == [path.parent.name.replace('_', ' ')]
        assert record['recording_id'] == f'tree/{record["id"]}'
    named = sources.open_source(f'tree:{tree}?split=train', tmp_path / 'data')
    assert 0 < len(named) < 17
    copy = travelled(named)
    assert repr(copy.read(1)) == repr(named.read(1))


def test_texts_beside_the_audio_win_over_the_folder(tree, opened):
    folder = tree / 'a_doors'
    (folder / 'doors_door_open.txt').write_text('A door opens.\nSqueak!\n')
    keys = {'captions': ['Glass.'], 'tags': ['glass', 'door'], 'recording_id': 'freesound/1'}
    (folder / 'doors_glass_door_close.json').write_text(json.dumps(keys))
    source = opened()
    found = {source.id(i).split('/')[1]: source.read(i) for i in range(17)}
    assert found['doors_door_open.ogg']['captions'] == ['A door opens.', 'Squeak!']
    assert found['doors_door_open.ogg']['label'] == ''
    glass = found['doors_glass_door_close.ogg']
    assert [glass[key] for key in keys] == list(keys.values())
    assert found['doors_steel_door_open.ogg']['captions'] == ['a doors']

    (folder / 'doors_door_open.txt').write_text('Another.')
    again = opened()
    assert again.index.digest != source.index.digest
    row = again.columns['id'].tolist().index('a_doors/doors_door_open.ogg')
    assert again.read(row)['captions'] == ['Another.']


def test_split_folders_decide(tree, opened):
    for split, cls in (('train', 'a_default'), ('valid', 'a_fire'), ('test', 'a_doors')):
        (tree / split).mkdir()
        (tree / cls).rename(tree / split / cls)
    (tree / 'a_tnt').rename(tree / 'deep')
    (tree / 'a' / 'b').mkdir(parents=True)
    (tree / 'deep').rename(tree / 'a' / 'b' / 'test')
    labels = {
        split: set(opened(split=split).columns['label'])
        for split in ('train', 'validation', 'test')
    }
    assert labels == {'train': {'a default'}, 'validation': {'a fire'}, 'test': {'a doors', 'b'}}


def test_links_hidden_files_and_what_is_left_out(tree, opened, tmp_path, caplog):
    (tmp_path / 'elsewhere').mkdir()
    (tree / 'a_tnt' / 'tnt_explode.ogg').rename(tmp_path / 'elsewhere' / 'x.ogg')
    (tree / 'linked').symlink_to(tmp_path / 'elsewhere')
    (tree / 'a_doors' / 'loop').symlink_to(tree)
    (tree / 'a_again').symlink_to(tree / 'a_fire')  # which is read under its own name
    (tree / 'a_doors' / '._doors_door_open.ogg').write_bytes(b'of another system')
    (tree / '.git').mkdir()
    (tree / '.git' / 'y.wav').write_bytes(b'hidden')
    (tree / 'a_doors' / 'gone.wav').symlink_to(tree / 'nowhere.wav')
    (tree / 'a_doors' / 'text.wav').write_text('no audio')
    (tree / 'at_the_top.wav').write_bytes((tree / 'a_doors' / 'doors_door_open.ogg').read_bytes())
    (tree / 'a_doors' / 'doors_door_open.json').write_text('{"caption": 3}')
    (tree / 'a_doors' / os.fsdecode(b'\xff.wav')).write_bytes(b'x')
    source = opened()
    assert len(source) == 16
    assert 'linked/x.ogg' in source.columns['id']
    assert 'a_fire/fire_large.ogg' in source.columns['id']
    told = '\n'.join(caplog.messages)
    assert '2 files that cannot be read as audio: a_doors/gone.wav' in told
    assert 'a_doors/text.wav (' in told
    assert '1 files without text: at_the_top.wav' in told
    assert '1 files whose text cannot be used' in told
    assert "'caption' is 3" in told
    assert r"1 files whose names are not UTF-8: 'a_doors/\udcff.wav'" in told
    assert len(opened(caption='none')) == 18  # the text is not looked at


def test_headers_are_read_once(tree, opened, monkeypatch):
    read, asked = headers.read, []
    monkeypatch.setattr(headers, 'read', lambda path: asked.append(path.name) or read(path))
    opened()
    assert len(asked) == 17
    opened()
    assert len(asked) == 17
    new = tree / 'a_fire' / 'new.ogg'
    new.write_bytes((tree / 'a_fire' / 'fire_large.ogg').read_bytes())
    assert len(opened()) == 18
    assert asked[17:] == ['new.ogg']


def test_mistakes_are_named(tree, tmp_path):
    with pytest.raises(ConfigError, match='does not exist'):
        sources.open_source({'tree': str(tree / 'none')}, tmp_path / 'data')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ConfigError, match='holds no record that can be used'):
        sources.open_source({'tree': str(tmp_path / 'empty')}, tmp_path / 'data')
    with pytest.raises(ConfigError, match="'captions' is unknown"):
        sources.open_source({'tree': str(tree), 'captions': 'a.csv'}, tmp_path / 'data')


def test_conditions_are_those_of_every_source(opened):
    fire = opened(where={'label': 'a fire'})
    short = fire.where({'duration': {'max': float(np.median(fire.columns['duration']))}})
    assert 0 < len(short) < len(fire) == 4
