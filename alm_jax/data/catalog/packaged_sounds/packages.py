"""Which Debian packages are read, at which version, and the sha256 of every member that is used.

The pinned version is the one all counts were measured on. Another version is accepted: what is
checked is each member file against ``members/<package>.sha256`` (the format of sha256sum).
"""

import importlib.resources

from alm_jax import config as config_lib

# The versions of Debian 12 (bookworm).
VERSIONS = {
    'asterisk-core-sounds-en': '1.6.1-1',
    'asterisk-core-sounds-en-g722': '1.6.1-1',
    'asterisk-core-sounds-es': '1.6.1-1',
    'asterisk-core-sounds-es-g722': '1.6.1-1',
    'asterisk-core-sounds-fr': '1.6.1-1',
    'asterisk-core-sounds-fr-g722': '1.6.1-1',
    'asterisk-core-sounds-ru': '1.6.1-1',
    'asterisk-core-sounds-ru-g722': '1.6.1-1',
    'fillets-ng-data': '1.0.1-1.1',
    'fillets-ng-data-cs': '1.0.1-1.1',
    'fillets-ng-data-nl': '1.0.1-1.1',
    'fluid-soundfont-gm': '3.1-5.3',
    'gcompris-qt-data': '3.1-2',
    'klettres-data': '4:22.12.3-1',
    'minetest-data': '5.6.1+dfsg+~1.9.0mt8+dfsg-2',
    'openttd-opensfx': '1.0.3-2',
    'sonic-pi-samples': '3.2.2~repack-8',
    'timgm6mb-soundfont': '1.3-5',
    'tuxpaint-stamps-default': '2022.06.04-1',
    'ufoai-sound': '2.5-2',
    'wesnoth-1.16-data': '1:1.16.9-1',
}

_TINY = (
    'openttd-opensfx',
    'gcompris-qt-data',
    'minetest-data',
    'ufoai-sound',
    'asterisk-core-sounds-en',
    'asterisk-core-sounds-en-g722',
    'timgm6mb-soundfont',
)
_BASE = (
    *_TINY,
    'tuxpaint-stamps-default',
    *(f'asterisk-core-sounds-{language}' for language in ('fr', 'es', 'ru')),
    *(f'asterisk-core-sounds-{language}-g722' for language in ('fr', 'es', 'ru')),
)
# On full the larger soundfont is rendered in place of timgm6mb (sources/soundfont.py).
TIERS = {'tiny': _TINY, 'base': _BASE, 'full': tuple(VERSIONS)}


def pinned_members(package: str) -> dict[str, str]:
    """member path -> sha256 in hex, for the members that are used; {} when none are pinned yet."""
    folder = importlib.resources.files(__package__) / 'members'
    file = folder / f'{package}.sha256'
    if not file.is_file():
        return {}
    lines = file.read_text(encoding='utf-8').splitlines()
    return {member: digest for digest, member in (line.split('  ', 1) for line in lines)}


def packages_of(tier: str) -> tuple[str, ...]:
    """Debian packages of a tier; ConfigError for an unknown tier."""
    if tier not in TIERS:
        raise config_lib.ConfigError(
            f'packaged_sounds has no tier {tier!r}. {config_lib.did_you_mean(tier, list(TIERS))}'
        )
    return TIERS[tier]
