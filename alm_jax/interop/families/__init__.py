"""One module a family of checkpoints: which module it is, and its name table."""

import importlib
import pkgutil

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.interop.family import Family


def all_families() -> dict[str, Family]:
    """model_type of config.json -> family."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f'{__name__}.{info.name}')
        for family in module.FAMILIES:
            found |= dict.fromkeys(family.model_types, family)
    return found


def find(model_type: str, where: str) -> Family:
    """The family of a model_type. Raises ConfigError that lists what is known."""
    known = all_families()
    if model_type not in known:
        hint = did_you_mean(model_type, sorted(known))
        raise ConfigError(f'{where}: model_type {model_type!r} is not an architecture here. {hint}')
    return known[model_type]
