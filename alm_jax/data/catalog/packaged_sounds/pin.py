"""For maintainers: writes members/<package>.sha256 anew from what a tier reads.

  python -m alm_jax.data.catalog.packaged_sounds.pin --data_dir DIR

The pins are taken from tier full, on the versions in packages.py, after a look at what changed.
"""

import pathlib
from collections.abc import Mapping

from absl import flags

from alm_jax import config as config_lib
from alm_jax.data import location
from alm_jax.data.catalog.packaged_sounds import builder, packages

_DATA_DIR = flags.DEFINE_string('data_dir', '', 'As for alm_jax.prepare.')
_FOLDER = pathlib.Path(__file__).parent / 'members'


def write_pins(used: Mapping[str, Mapping[str, str]], folder: pathlib.Path = _FOLDER) -> None:
    """Writes package -> member -> sha256 in the format of sha256sum, sorted by member."""
    folder.mkdir(exist_ok=True)
    for package, members in used.items():
        lines = [f'{digest}  {member}\n' for member, digest in sorted(members.items())]
        (folder / f'{package}.sha256').write_text(''.join(lines), encoding='utf-8')


def main(argv: list[str]) -> None:
    del argv
    for file in _FOLDER.glob('*.sha256'):
        file.unlink()  # what is pinned is all that may be read
    _, report = builder.place('full', location.data_dir(_DATA_DIR.value))
    for name, version in report['packages'].items():
        if version != packages.VERSIONS[name]:
            raise config_lib.ConfigError(f'{name} is {version}; pins are of {packages.VERSIONS}.')
    write_pins(report['used'])
    print(f'Pinned {sum(map(len, report["used"].values()))} members in {_FOLDER}.')


if __name__ == '__main__':
    config_lib.run(main)
