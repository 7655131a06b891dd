"""What holds for every dataset of the catalog."""

import importlib
import pathlib
import pkgutil
import re

import pytest

from alm_jax.config import ConfigError
from alm_jax.data import catalog, record
from alm_jax.data.catalog.declaration import Dataset
from alm_jax.data.catalog.files import Files

NAMES = [name for name in catalog.names() if name not in catalog.OWN_BUILDERS]
LONGEST = 60  # lines: a declaration is no builder


def test_every_module_that_declares_is_found_under_its_own_name():
    declared = {}
    for module in pkgutil.iter_modules(catalog.__path__):
        if not module.ispkg:
            found = importlib.import_module(f'{catalog.__name__}.{module.name}')
            if isinstance(getattr(found, 'DATASET', None), Dataset):
                declared[module.name] = found.DATASET.name
    assert declared == {name: name for name in NAMES}
    assert len(NAMES) >= 16


def test_an_unknown_dataset_names_the_nearest():
    with pytest.raises(ConfigError, match='esc50'):
        catalog.find('esc-50')


@pytest.mark.parametrize('name', NAMES)
def test_what_a_declaration_says(name):
    dataset = catalog.find(name)
    assert re.fullmatch(r'\d+\.\d+\.\d+', dataset.version)
    for field in ('title', 'licence', 'layout'):
        text = getattr(dataset, field)
        assert text.strip() == text != ''
    assert re.match(r'https?://\S+$', dataset.homepage)
    assert dataset.kind in ('sound', 'instrument', 'music', 'speech')
    origin, _, by_what = dataset.provenance.partition(': ')
    assert origin in record.PROVENANCES
    assert bool(by_what) == (origin == 'generated')
    assert len(dataset.configs) == len(set(dataset.configs)) >= 1
    assert dataset.configs == ('',) or all(re.fullmatch(r'[\w.]+', c) for c in dataset.configs)
    assert max(map(len, dataset.layout.splitlines())) <= 100


@pytest.mark.parametrize('name', NAMES)
def test_a_declaration_is_short_and_tells_what_it_declares(name):
    module = importlib.import_module(f'{catalog.__name__}.{name}')
    assert module.__doc__.strip()
    lines = pathlib.Path(module.__file__).read_text().splitlines()
    assert len(lines) <= LONGEST


@pytest.mark.parametrize('name', NAMES)
def test_without_its_files_a_dataset_says_what_it_needs(name, tmp_path):
    dataset = catalog.find(name)
    with pytest.raises(ConfigError) as absent:
        Files(tmp_path / 'absent', dataset.layout)
    assert dataset.layout in str(absent.value)
    for config in dataset.configs:
        items = dataset.items(Files(tmp_path, dataset.layout), config)
        if name == 'ravdess':  # its file names are known without a table
            assert not any(item.audio for item in items)
            continue
        with pytest.raises(ConfigError) as error:
            list(items)
        assert dataset.layout in str(error.value)
        assert str(tmp_path) in str(error.value)
