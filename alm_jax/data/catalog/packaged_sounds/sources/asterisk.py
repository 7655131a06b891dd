"""Telephone prompts of Asterisk: one speaker a language, studio recordings, exact transcripts.

The audio packages hold raw G.722 at 16 kHz; the transcripts are in the small metapackages, one
'key: text' a line. A prompt keeps its key in every language, so the key is the split unit and the
English text of the same key is the translation.
"""

import collections
import functools
import gzip
import io
import re
from collections.abc import Iterator, Mapping

import av
import numpy as np

from alm_jax.config import ConfigError
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources.grouping import text_groups
from alm_jax.data.catalog.packaged_sounds.sources.reading import MAX_TEXT_BYTES, as_text

# language -> (speaker, licence), from debian/copyright.
_VOICES = {
    'en': ('Allison Smith', 'CC-BY-SA-3.0'),
    'fr': ('June Wallack', 'CC-BY-SA-3.0'),
    'es': ('Allison Smith', 'CC-BY-SA-3.0'),
    'ru': ('Maxim Topal, ivrvoice.ru', 'CC-BY-3.0'),
}
PACKAGES = tuple(
    f'asterisk-core-sounds-{language}{codec}' for language in _VOICES for codec in ('', '-g722')
)

_MAX_AUDIO_BYTES = 8 << 20  # 17 minutes
_RATE = 16_000
_ENGLISH = 'en'
# 'at [@]', 'IAX (note: does not say "2")': a remark about the recording, not part of what is said.
_REMARK = re.compile(r'\s*(\[[^\[\]]*\]|\([^()]*\))$')


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Prompts of the languages whose two packages are both given.

    Args:
      packages: name -> package.
      dropped: counts what is left out, by reason.
    """
    dropped = collections.Counter() if dropped is None else dropped
    languages = [language for language in _VOICES if set(_names(language)) <= set(packages)]
    spoken = {}
    for language in languages:
        texts = _transcripts(packages[_names(language)[0]], language)
        spoken[language] = _spoken(texts, packages[_names(language)[1]], dropped)
    said = collections.defaultdict(list)
    for prompts in spoken.values():
        for key, (_, text) in prompts.items():
            said[key].append(text)
    groups = text_groups(said)
    english = {key: text for key, (_, text) in spoken.get(_ENGLISH, {}).items()}
    for language in languages:
        speaker, licence = _VOICES[language]
        package = packages[_names(language)[1]]
        for key, (member, text) in sorted(spoken[language].items()):
            yield Clip(
                package='asterisk',
                member=f'{package.name}/{member}',
                read=functools.partial(_read, package, member),
                kind='speech',
                group='asterisk/' + groups[key],
                title=english.get(key, text),
                licence=licence,
                author=speaker,
                language=language,
                transcript=text,
                translation='' if language == _ENGLISH else english.get(key, ''),
            )


def parse_transcripts(text: str) -> dict[str, str]:
    """'key: text' lines; ';' starts a comment. The first of two equal keys holds (es digits/0)."""
    prompts = {}
    for line in text.splitlines():
        key, colon, said = line.partition(':')
        if colon and not line.startswith(';'):
            prompts.setdefault(key.strip(), said.strip())
    return prompts


def spoken_words(text: str) -> str:
    """The words of a transcript without remarks; '' for a noise, a silence or nothing.

    >>> spoken_words('at [@]'), spoken_words('[ascending tones]')
    ('at', '')
    """
    if text.startswith('<'):
        return ''
    return _REMARK.sub('', text).strip()


def _names(language: str) -> tuple[str, str]:
    return f'asterisk-core-sounds-{language}', f'asterisk-core-sounds-{language}-g722'


def _transcripts(package: Package, language: str) -> dict[str, str]:
    member = f'usr/share/doc/{package.name}/core-sounds-{language}.txt.gz'
    with gzip.open(io.BytesIO(package.read(member))) as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    return parse_transcripts(as_text(data, f'{package.name}: {member}'))


def _spoken(
    texts: Mapping[str, str], package: Package, dropped: collections.Counter
) -> dict[str, tuple[str, str]]:
    """prompt key -> (member, words) for every recording with words."""
    prompts = {}
    for member in package.members():
        match = re.fullmatch(r'usr/share/asterisk/sounds/[^/]+/(.+)\.g722', member)
        if match is None:
            continue
        words = spoken_words(texts.get(match[1], ''))
        if words:
            prompts[match[1]] = (member, words)
        elif texts.get(match[1]):
            dropped['asterisk: a noise or a silence'] += 1
        else:
            dropped['asterisk: no transcript'] += 1
    return prompts


def _read(package: Package, member: str) -> tuple[np.ndarray, int]:
    return decode_g722(package.read(member), f'{package.name}: {member}'), _RATE


def decode_g722(data: bytes, where: str) -> np.ndarray:
    """Raw G.722 at 64 kbit/s -> int16 [2 * bytes] at 16 kHz. ConfigError names ``where``."""
    if not 0 < len(data) <= _MAX_AUDIO_BYTES:
        raise ConfigError(f'{where} has {len(data)} bytes; expected 1 to {_MAX_AUDIO_BYTES}.')
    decoder = av.CodecContext.create('g722', 'r')
    decoder.sample_rate, decoder.layout = _RATE, 'mono'
    try:
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.FFmpegError as error:
        raise ConfigError(f'{where} does not decode as G.722: {error}.') from error
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.int16)
