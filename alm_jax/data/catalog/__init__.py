"""The catalog: one module a dataset, found by name.

A module that holds ``DATASET`` (declaration.Dataset) declares one; ``packaged_sounds`` has a
builder of its own.
"""

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

from alm_jax.config import ConfigError, did_you_mean

if TYPE_CHECKING:
    from alm_jax.data.catalog.declaration import Dataset

OWN_BUILDERS = ('packaged_sounds',)


def find(name: str) -> 'Dataset':
    """The declaration of a dataset. Raises ConfigError, which names the nearest, for none."""
    if name not in _declared():
        raise ConfigError(f'dataset {name!r} is not in the catalog. {did_you_mean(name, names())}')
    return _declared()[name]


def names() -> list[str]:
    """All that ``prepare`` builds, sorted; those of OWN_BUILDERS have no declaration."""
    return sorted([*_declared(), *OWN_BUILDERS])


@functools.cache
def _declared() -> dict[str, 'Dataset']:
    modules = (
        importlib.import_module(f'{__name__}.{module.name}')
        for module in pkgutil.iter_modules(__path__)
        if not module.ispkg
    )
    return {module.DATASET.name: module.DATASET for module in modules if hasattr(module, 'DATASET')}
