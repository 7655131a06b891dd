"""The prepare binary, as a user types it."""

import json
import subprocess
import sys

import pytest

from alm_jax import prepare
from alm_jax.config import ConfigError
from alm_jax.data import catalog, sources

HEADER = 'file_name,' + ','.join(f'caption_{n}' for n in range(1, 6)) + '\n'
METADATA = 'file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n'


@pytest.fixture
def clotho(tmp_path, recordings):
    """A miniature of Clotho: eight recordings in each part."""
    folder = tmp_path / 'clotho'
    paths = sorted(recordings.glob('*.ogg'))
    for part, chosen in zip(('development', 'validation', 'evaluation'), (paths, paths, paths)):
        (folder / part).mkdir(parents=True)
        captions, metadata = HEADER, METADATA
        for number, path in enumerate(chosen[:8]):
            (folder / part / f'{number}.ogg').write_bytes(path.read_bytes())
            captions += f'{number}.wav,One,Two,Three,Four,Five\n'
            metadata += f'{number}.wav,door;wood,{number},,,Jos\u00e9,\n'
        (folder / f'clotho_captions_{part}.csv').write_text(captions)
        (folder / f'clotho_metadata_{part}.csv').write_text(metadata, 'iso-8859-1')
    return folder


def run(*arguments):
    command = [sys.executable, '-m', 'alm_jax.prepare', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_prepare_then_train_on_it_by_name(clotho, tmp_path):
    (clotho / 'evaluation/3.ogg').unlink()
    data_dir = tmp_path / 'data'
    flags = ('--manual_dir', clotho, '--data_dir', data_dir)
    done = run('clotho', *flags)
    assert (done.returncode, 'Traceback' in done.stderr) == (2, False)
    assert 'test: 1 of 8 records: 3.wav' in done.stderr
    flags += ('--allow_missing', '--sampling_rate=16000', '--storage=pcm16')
    done = run('clotho', *flags, '--records_per_shard=5', '--workers=2', '--max_seconds=0.5')
    assert done.returncode == 0, done.stderr
    assert '| test | 7 |' in done.stdout
    assert f'Prepared: {data_dir}/clotho/1.0.0' in done.stdout
    assert 'records/s' in done.stderr
    source = sources.open_source('clotho:train', data_dir)
    assert len(source) == 8
    assert source[0]['captions'] == ['One', 'Two', 'Three', 'Four', 'Five']
    assert source[0]['author'] == 'Jos\u00e9'
    assert set(source.columns['rate']) == {16_000}
    assert source.columns['num_samples'].max() == 8_000
    source = sources.open_source('clotho:validation+test', data_dir, {'loudness': {'min': -60}})
    assert 0 < len(source) <= 15
    summary = json.loads((data_dir / 'clotho/1.0.0/card.json').read_text())
    assert summary['splits']['train']['shards'] == [5, 3]
    options = {'sampling_rate': 16000, 'storage': 'pcm16', 'records_per_shard': 5}
    prepare.prepare('clotho', data_dir=str(data_dir), max_seconds=0.5, **options)


def test_a_second_prepare_does_nothing_and_says_so(clotho, tmp_path, capsys):
    for said in ('Prepared: ', 'Already prepared, nothing to do: '):
        prepare.prepare(
            'clotho', None, str(tmp_path / 'data'), manual_dir=str(clotho), splits=('test',),
            workers=1,
        )  # fmt: skip
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['cloto'], "Did you mean 'clotho'?"),
        (['audiocaps/3.0'], "Did you mean '"),
        (['clotho', '--tier=tiny'], 'disagree'),
        (['clotho', '--storage=mp3'], 'flac|pcm16'),
        (['clotho', '--manual_dir=/nowhere'], 'clotho_captions_{development,validation'),
        (['clotho', '--download'], 'cannot be downloaded from here'),
        ([], '--list'),
    ],
)
def test_mistakes_give_one_screen(tmp_path, arguments, said):
    done = run(*arguments, f'--data_dir={tmp_path}')
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert 'Traceback' not in done.stderr


def test_the_default_manual_dir_is_named(tmp_path):
    with pytest.raises(ConfigError, match=rf"'{tmp_path}/manual/clotho' does not exist"):
        prepare.prepare('clotho', data_dir=str(tmp_path))


def test_the_list_names_every_dataset_with_what_it_needs():
    done = run('--list')
    assert done.returncode == 0
    for name in catalog.names():
        assert f'| {name}' in done.stdout
        if name not in catalog.OWN_BUILDERS:
            assert catalog.find(name).layout.splitlines()[-1] in done.stdout


def test_what_is_not_prepared_names_the_command(tmp_path):
    with pytest.raises(ConfigError, match=r'\n  python -m alm_jax\.prepare clotho --manual_dir'):
        sources.open_source('clotho:train', tmp_path)
    with pytest.raises(ConfigError, match=r'prepare audiocaps/2\.0 --manual_dir FOLDER'):
        sources.open_source('audiocaps/2.0:train', tmp_path)
    with pytest.raises(ConfigError, match=r'audiocaps/CONFIG:SPLIT; its configs are 1\.0, 2\.0'):
        sources.open_source('audiocaps:train', tmp_path)
    with pytest.raises(ConfigError, match=r"Did you mean 'clotho'"):
        sources.open_source('cloto:train', tmp_path)
