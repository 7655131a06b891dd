"""Which tokenizer a run has: by what its rows are, and by what it began with."""

import pytest

from alm_jax import config as config_lib
from alm_jax import run_setup
from alm_jax.data import sources
from alm_jax.interop import packaged_weights
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.text.tokenizer import Tokenizer


@pytest.fixture
def opened(recordings_data):
    return [sources.open_source(recordings_data, '')]


@pytest.mark.parametrize('dialogue', ['', 'chat'])
def test_one_is_trained_where_none_can_be_had(dialogue, opened, monkeypatch, tmp_path):
    def unavailable(name, data_dir):
        raise packaged_weights.WeightsUnavailable('no network')

    monkeypatch.setattr(packaged_weights, 'fetch', unavailable)
    config = config_lib.base()
    config.text.tokenizer = 'packaged:smollm2'
    config.data.text.dialogue = dialogue
    made = run_setup.make_tokenizer(config, opened, None)
    assert type(made) is (LanguageTokenizer if dialogue else Tokenizer)

    made.save(tmp_path / 'tokenizer')
    config.text.tokenizer = str(tmp_path / 'tokenizer')
    assert run_setup.make_tokenizer(config, opened, None).sha256 == made.sha256
    # A run that goes on has the one it began with, whatever its config names.
    config.text.tokenizer = 'packaged:other'
    found = tmp_path / 'checkpoints' / '7'
    assert run_setup.make_tokenizer(config, opened, found).sha256 == made.sha256
