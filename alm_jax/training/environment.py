"""What the bits of a run depend on besides its config, code and data.

Devices of another kind or number, processes of another number and packages of other versions add up
in another order. A checkpoint tells under which it was written, and a run does not go on from it
under others unless it is told to.
"""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import jax

from alm_jax.config import ConfigError

# Of the step, and of what makes its batches.
PACKAGES = (
    *('alm_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy'),
    *('soundfile', 'soxr'),
)


def entries() -> dict[str, dict[str, Any]]:
    """What a manifest tells of here: 'environment' and, by package, 'versions'."""
    device = jax.devices()[0]
    return {
        'environment': {
            'platform': device.platform,
            'device_kind': device.device_kind,
            'device_count': jax.device_count(),
            'process_count': jax.process_count(),
        },
        'versions': {name: _version(name) for name in PACKAGES},
    }


def differences(manifest: Mapping[str, Any]) -> list[str]:
    """Lines such as 'jax: 0.10.1 there, 0.10.2 here'; what a manifest does not tell is no one."""
    here = entries()
    return [
        f'{name}: {was[name] or "not installed"} there, {value or "not installed"} here'
        for group in here
        for was in (manifest.get(group, {}),)
        for name, value in here[group].items()
        if was.get(name, value) != value
    ]


def check(manifest: Mapping[str, Any], where: Any, *, allow_change: bool) -> str:
    """What to tell of a change of environment since a checkpoint; '' when there is none.

    Args:
      manifest: of the checkpoint.
      where: its path, for the message.
      allow_change: whether to go on nevertheless.

    Raises:
      ConfigError: it changed, and that is not allowed; lists what differs.
    """
    found = differences(manifest)
    if not found:
        return ''
    told = '\n  '.join((f'checkpoint {where} was written under another environment:', *found))
    if not allow_change:
        raise ConfigError(
            f'{told}\nLosses would not be those of the run that wrote it, to the last bit. Go on '
            'in its environment, or give --allow_env_change to go on in this one.'
        )
    return f'{told}\n  and the run goes on here (--allow_env_change).'


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ''
