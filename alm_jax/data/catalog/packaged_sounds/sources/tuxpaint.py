"""Tux Paint stamps, spoken: short descriptions and digits, in up to 22 languages.

NAME.txt holds the English text on its first line and then ``xx.utf8=`` translations; the readings
are NAME_desc_xx.ogg (NAME_desc.ogg is English) and, for the digits, NAME_xx.ogg.
"""

import collections
import functools
import io
import re
import statistics
from collections.abc import Iterator, Mapping

import soundfile

from alm_jax.config import ConfigError
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import reading
from alm_jax.data.catalog.packaged_sounds.sources.grouping import text_groups

PACKAGES = ('tuxpaint-stamps-default',)

_STAMPS = 'usr/share/tuxpaint/stamps/'
_LANGUAGE = r'(?:_(?P<language>[a-z]{2}(?:_[A-Za-z]{2})?))?\.(?:ogg|wav)'
_DESCRIPTION = re.compile(rf'{_STAMPS}(?P<concept>.+)_desc{_LANGUAGE}')
_DIGIT = re.compile(rf'{_STAMPS}(?P<concept>symbols/math/[0-9]){_LANGUAGE}')
# Long texts are often read in part only (Catalan, Belarusian and Greek most): the characters a
# second then exceed what the language's readers do elsewhere.
_RATE_RANGE = (0.3, 2.2)  # times the language's median


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Readings that have a text in their language and read all of it.

    Args:
      packages: name -> package.
      dropped: counts what is left out, by reason.
    """
    dropped = collections.Counter() if dropped is None else dropped
    if PACKAGES[0] not in packages:
        return
    package = packages[PACKAGES[0]]
    texts = _texts(package)
    kept = _read_in_full(package, _with_text(package, texts, dropped), dropped)
    said = collections.defaultdict(list)
    for concept, _, text in kept.values():
        said[concept] += [text, texts[concept]['en']]
    groups = text_groups(said)
    for member, (concept, language, text) in kept.items():
        english = texts[concept]['en']
        yield Clip(
            package='tuxpaint',
            member=member,
            read=functools.partial(reading.read_audio, package, member),
            kind='speech',
            group='tuxpaint/' + groups[concept],
            title=english,
            licence='GPL-2.0-only',
            author='Tux Paint contributors',
            language=language.replace('_', '-'),
            transcript=text,
            translation='' if language.startswith('en') else english,
        )


def parse_texts(text: str) -> dict[str, str]:
    """language as written ('pt_BR', 'en' for the first line) -> text; empty ones are left out."""
    lines = text.splitlines()
    texts = {'en': lines[0].strip()} if lines else {}
    for line in lines[1:]:
        match = re.fullmatch(r'([A-Za-z_@]+)\.utf8=(.*)', line.strip())
        if match:
            texts.setdefault(match[1], match[2].strip())
    return {language: said for language, said in texts.items() if said}


def _texts(package: Package) -> dict[str, dict[str, str]]:
    """concept (path without suffix) -> language -> text, of the stamps with an English text."""
    concepts = {}
    for member in package.members():
        if member.startswith(_STAMPS) and member.endswith('.txt'):
            texts = parse_texts(reading.read_text(package, member))
            if 'en' in texts:
                concepts[member.removeprefix(_STAMPS).removesuffix('.txt')] = texts
    return concepts


def _with_text(
    package: Package, texts: Mapping[str, Mapping[str, str]], dropped: collections.Counter
) -> dict[str, tuple[str, str, str]]:
    """member -> (concept, language, text)."""
    readings = {}
    for member in package.members():
        match = _DESCRIPTION.fullmatch(member) or _DIGIT.fullmatch(member)
        if match is None:
            continue
        language, country = (match['language'] or 'en').partition('_')[::2]
        language += f'_{country.upper()}' if country else ''
        said = texts.get(match['concept'], {})
        # en_GB is written out only where it differs from the first line.
        text = said.get(language) or (said.get('en') if language == 'en_GB' else None)
        if text:
            readings[member] = (match['concept'], language, text)
        else:
            dropped['tuxpaint: no text in the language that is spoken'] += 1
    return readings


def _read_in_full(
    package: Package,
    readings: Mapping[str, tuple[str, str, str]],
    dropped: collections.Counter,
) -> dict[str, tuple[str, str, str]]:
    """The readings whose characters a second are near the median of their language."""
    rates = {m: len(text) / max(_seconds(package, m), 0.01) for m, (*_, text) in readings.items()}
    of_language = collections.defaultdict(list)
    for member, (_, language, _) in readings.items():
        of_language[language].append(rates[member])
    medians = {language: statistics.median(known) for language, known in of_language.items()}
    low, high = _RATE_RANGE
    kept = {}
    for member, (concept, language, text) in readings.items():
        if low <= rates[member] / medians[language] <= high:
            kept[member] = (concept, language, text)
        else:
            dropped[f'tuxpaint: text only partly read ({language})'] += 1
    return kept


def _seconds(package: Package, member: str) -> float:
    """Duration from the header."""
    try:
        return soundfile.info(io.BytesIO(package.read(member))).duration
    except soundfile.SoundFileError as error:
        raise ConfigError(f'{package.name}: {member} is not audio: {error}.') from error
