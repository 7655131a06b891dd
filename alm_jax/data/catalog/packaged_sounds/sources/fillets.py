"""Dialogues of the game Fish Fillets, acted in Czech and Dutch.

Each level's dialogs_xx.lua lists ``dialogId("id", "font", "English")``, each followed by
``dialogStr("own language")``; the recording is sound/LEVEL/.../xx/id.ogg, in the package of the
language or in fillets-ng-data.
"""

import collections
import functools
import re
from collections.abc import Iterator, Mapping

from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import reading
from alm_jax.data.catalog.packaged_sounds.sources.grouping import text_groups

_SCRIPTS = 'fillets-ng-data'
_VOICES = {'cs': 'fillets-ng-data-cs', 'nl': 'fillets-ng-data-nl'}
PACKAGES = (_SCRIPTS, *_VOICES.values())

_ROOT = 'usr/share/games/fillets-ng/'
_STRING = r'\s*"((?:[^"\\\n]|\\.)*)"\s*'
_DIALOGUE = re.compile(rf'dialogId\s*\({_STRING},{_STRING},{_STRING}\)\s*dialogStr\s*\({_STRING}\)')
_SENTENCE = 4  # words; 'Leave me alone!' is said in many levels and would tie them together

Key = tuple[str, str]  # level, dialogue id


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Recordings with a text, of the languages whose package is given beside the scripts.

    Args:
      packages: name -> package.
      dropped: counts what is left out, by reason.
    """
    dropped = collections.Counter() if dropped is None else dropped
    if _SCRIPTS not in packages:
        return
    languages = [language for language, voice in _VOICES.items() if voice in packages]
    texts = {language: _texts(packages[_SCRIPTS], language) for language in languages}
    groups = _groups(texts.values())
    for language in languages:
        recordings = _recordings([packages[_SCRIPTS], packages[_VOICES[language]]], language)
        for key, (package, member) in sorted(recordings.items()):
            english, text = texts[language].get(key, ('', ''))
            if not text or '%' in text:  # 'B%1.' is filled in by the game
                dropped[f'fillets: no text ({language})'] += 1
                continue
            yield Clip(
                package='fillets',
                member=f'{package.name}/{member}',
                read=functools.partial(reading.read_audio, package, member),
                kind='speech',
                group='fillets/' + groups[key[0]],
                title=english or text,
                licence='GPL-2.0-only',
                author='ALTAR interactive and the Fish Fillets NG project',
                language=language,
                transcript=text,
                translation=english,
            )


def parse_dialogues(lua: str) -> dict[str, tuple[str, str]]:
    """dialogue id -> (English, own language), of the pairs that a dialogs_xx.lua lists.

    Strings are unescaped; commented lines do not count. The first of two equal ids holds.
    """
    code = re.sub(r'^\s*--.*', '', lua, flags=re.MULTILINE)
    dialogues = {}
    for name, _, english, own in _DIALOGUE.findall(code):
        dialogues.setdefault(_unescape(name), (_unescape(english), _unescape(own)))
    return dialogues


def _unescape(string: str) -> str:
    """A Lua string's backslashes: a line break becomes a space, others stand for what follows."""
    return re.sub(r'\\(.)', lambda m: ' ' if m[1] in 'nrt' else m[1], string).strip()


def _texts(package: Package, language: str) -> dict[Key, tuple[str, str]]:
    """(level, dialogue id) -> (English, own language)."""
    texts = {}
    for member in package.members():
        match = re.fullmatch(rf'{_ROOT}script/([^/]+)/\w*dialogs_{language}\.lua', member)
        if match:
            for name, pair in parse_dialogues(reading.read_text(package, member)).items():
                texts.setdefault((match[1], name), pair)
    return texts


def _recordings(packages: list[Package], language: str) -> dict[Key, tuple[Package, str]]:
    """(level, dialogue id) -> (package, member)."""
    found = {}
    for package in packages:
        for member in package.members():
            match = re.fullmatch(rf'{_ROOT}sound/([^/]+)/(?:.+/)?{language}/([^/]+)\.ogg', member)
            if match:
                found.setdefault((match[1], match[2]), (package, member))
    return found


def _groups(texts) -> dict[str, str]:
    """level -> split unit: levels that share a sentence stay together."""
    said = collections.defaultdict(list)
    for of_language in texts:
        for (level, _), pair in of_language.items():
            said[level] += [text for text in pair if len(text.split()) >= _SENTENCE]
    return text_groups(said)
