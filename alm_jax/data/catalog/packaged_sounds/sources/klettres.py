"""Letters and syllables read for children who learn to read (KLettres), in 20 locales.

LOCALE/sounds.xml names each recording: ``<sound name="BA" file="it/syllab/ba.ogg"/>``.
"""

import collections
import functools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping

from alm_jax.config import ConfigError
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import reading
from alm_jax.data.catalog.packaged_sounds.sources.grouping import text_groups

PACKAGES = ('klettres-data',)

_ROOT = 'usr/share/klettres/'
_KINDS = {'alphabet': 'letter', 'syllables': 'syllable'}


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Every recording that its locale's sounds.xml names.

    Args:
      packages: name -> package.
      dropped: counts what is left out, by reason.
    """
    dropped = collections.Counter() if dropped is None else dropped
    if PACKAGES[0] not in packages:
        return
    package = packages[PACKAGES[0]]
    named = _named(package, dropped)
    # The same letter is the same unit in every locale.
    groups = text_groups({text: [text] for _, _, text in named.values()})
    for member, (locale, kind, text) in sorted(named.items()):
        yield Clip(
            package='klettres',
            member=member,
            read=functools.partial(reading.read_audio, package, member),
            kind='speech',
            group='klettres/' + groups[text],
            title=f'the {kind} {text}',
            tags=(kind,),
            licence='GPL-2.0-or-later',
            author='KLettres contributors',
            language=locale.replace('_', '-'),
            transcript=text,
            translation='' if locale.startswith('en') else f'the {kind} {text}',
        )


def parse_sounds(data: bytes, where: str) -> list[tuple[str, str, str]]:
    """(kind, text, file) of each sound; ConfigError names ``where`` when it is not such a file."""
    if re.search(rb'<!(DOCTYPE|ENTITY)', data):  # these files have none; entities can explode
        raise ConfigError(f'{where} declares a document type; expected plain elements.')
    try:
        root = ET.fromstring(reading.as_text(data, where).encode())
    except (ET.ParseError, ValueError) as error:
        raise ConfigError(f'{where} is not XML: {error}.') from error
    return [
        (kind, sound.get('name', '').strip(), sound.get('file', '').strip())
        for section, kind in _KINDS.items()
        for sound in root.iterfind(f'.//{section}/sound')
    ]


def _named(package: Package, dropped: collections.Counter) -> dict[str, tuple[str, str, str]]:
    """member -> (locale, kind, text); a recording belongs to the locale whose folder holds it."""
    members = {member for member in package.members() if member.endswith('.ogg')}
    named = {}
    for listing in package.members():
        match = re.fullmatch(rf'{_ROOT}([^/]+)/sounds\.xml', listing)
        if match is None:
            continue
        for kind, text, file in parse_sounds(package.read(listing), f'{package.name}: {listing}'):
            if _ROOT + file not in members:
                dropped['klettres: listed, but the package lacks the recording'] += 1
            elif not text or not file.startswith(match[1] + '/'):
                dropped['klettres: no text of its own locale'] += 1
            else:
                named.setdefault(_ROOT + file, (match[1], kind, text))
    dropped['klettres: recording without a text'] += len(members - set(named))
    return named
