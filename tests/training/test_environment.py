"""A checkpoint of other devices or packages is gone on from only when that is asked for."""

import copy

import pytest

from alm_jax.config import ConfigError
from alm_jax.training import environment


def test_what_differs_is_listed_and_refused():
    manifest = copy.deepcopy(environment.entries())
    assert environment.check(manifest, 'runs/tiny', allow_change=False) == ''
    manifest['environment']['device_kind'] = 'NVIDIA H200'
    manifest['versions'] |= {'jaxlib': '0.4.1', 'soxr': ''}
    with pytest.raises(ConfigError, match='--allow_env_change') as error:
        environment.check(manifest, 'runs/tiny', allow_change=False)
    told = environment.check(manifest, 'runs/tiny', allow_change=True)
    for text in (str(error.value), told):
        assert 'runs/tiny' in text
        assert 'device_kind: NVIDIA H200 there, cpu here' in text
        assert 'jaxlib: 0.4.1 there, ' in text
        assert 'soxr: not installed there, ' in text
        assert len(text.splitlines()) == 5


def test_what_an_older_manifest_does_not_tell_is_no_difference():
    assert environment.check({'versions': {}}, '', allow_change=False) == ''
    assert environment.check({'step': 0}, '', allow_change=False) == ''
