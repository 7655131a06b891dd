"""Preparing on Apache Beam. It pins an older protobuf, so these need an environment of their own:

python -m venv /tmp/beam && /tmp/beam/bin/pip install -e '.[beam,dev]'
/tmp/beam/bin/python -m pytest tests/data/catalog/test_beam.py -m slow_local
"""

import hashlib
import json
import sys

import pytest

from alm_jax.config import ConfigError
from alm_jax.data import catalog, sources
from alm_jax.data.catalog.building import builder, runners


@pytest.fixture
def folder(tmp_path, clips, write_csv):
    """Forty clips of FSD50K."""
    header, rows = ('fname', 'labels', 'mids', 'split'), []
    for number in range(40):
        clips.write(tmp_path / f'official/FSD50K.dev_audio/{number}.wav', number)
        rows.append((number, 'Door,Wood', '/m/1,/m/2', ('train', 'val')[number % 7 == 0]))
    write_csv(tmp_path / 'official/FSD50K.ground_truth/dev.csv', header, rows)
    write_csv(tmp_path / 'official/FSD50K.ground_truth/eval.csv', header[:3], [])
    (tmp_path / 'official/FSD50K.metadata').mkdir()
    for part in ('dev', 'eval'):
        path = tmp_path / f'official/FSD50K.metadata/{part}_clips_info_FSD50K.json'
        path.write_text(json.dumps({}))
    return tmp_path / 'official'


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.slow_local
@pytest.mark.filterwarnings('default')  # of Beam's own modules
@pytest.mark.parametrize(
    'beam_options',
    [(), ('--direct_num_workers=2', '--direct_running_mode=multi_processing')],
    ids=['one process', 'two processes'],
)
def test_beam_writes_the_bytes_of_the_pool(folder, tmp_path, beam_options):
    made = {}
    for runner in ('', 'DirectRunner'):
        options = builder.Options(
            sampling_rate=16_000,
            records_per_shard=8,
            workers=2,
            beam_runner=runner,
            beam_options=beam_options,
        )
        data_dir = tmp_path / (runner or 'pool')
        path, _ = builder.build(catalog.find('fsd50k'), '', folder, data_dir, options)
        made[runner] = digests(path)
    assert len([name for name in made[''] if 'array_record' in name]) == 6
    assert made['DirectRunner'] == made['']
    assert len(sources.open_source('fsd50k/labels:train+validation', tmp_path / 'pool')) == 40


def test_without_beam_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'apache_beam', None)
    with pytest.raises(ConfigError, match=r"pip install 'alm_jax\[beam\]'"):
        runners.run_beam([], 'DirectRunner', [])
