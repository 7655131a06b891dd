"""Which licences let a trained model be sold: ``'where': {'licence_allows': 'commercial'}``.

A licence counts only when all of it is known and permits commercial use; what is not known does
not count, nor does a text that adds terms of others, such as "audio under the terms of each YouTube
video". Licences that ask for attribution or for the same licence count, and their terms remain to
be met. Of generated text, see also the column ``provenance``. This is no legal advice.
"""

import re
from collections.abc import Mapping
from typing import Any

from alm_jax.config import ConfigError, did_you_mean

USES = ('commercial',)
_ADDRESS = re.compile(r'creativecommons\.org/(?:licenses|publicdomain)/([a-z+-]+)/?([\d.]*)')
_SPLIT_WORD = re.compile(r'\b(non|no|share)[ -](commercial|deriv\w*|alike)')
# The words of a Creative Commons licence, as an SPDX name, in full, or as Freesound's pages say it.
_WORDS = {
    **dict.fromkeys(('by', 'attribution'), 'BY'),
    **dict.fromkeys(('nc', 'noncommercial'), 'NC'),
    **dict.fromkeys(('nd', 'noderivs', 'noderivatives'), 'ND'),
    **dict.fromkeys(('sa', 'sharealike'), 'SA'),
    **dict.fromkeys(('cc', 'creative', 'commons', 'license', 'licence'), ''),
    **dict.fromkeys(('international', 'unported', 'generic'), ''),
}
_ZERO = re.compile(r'(?:cc|creative commons)[ -]?(?:0|zero)(?:[ -]v?1\.0)?(?: universal)?')
# Whose every version permits commercial use.
_PERMISSIVE = re.compile(
    r'(?:[al]?gpl|gfdl|lal|mit|expat|x11|isc|zlib|apache|mpl|artistic|ofl|unlicense|wtfpl|0?bsd|'
    r'public[ -]domain|pdm|pddl|odc-by|odbl|dbcl|cc0|cc-by(?:-sa)?)'
    r'(?:-[234]-clause)?(?:[ -]?v?\d+(?:\.\d+)*)?(?:\+|-only|-or-later)?'
)
_PARTS = re.compile(r';|,|\band\b|&')


def name(text: str) -> str:
    """One licence as SPDX writes it where it is a Creative Commons one; other text as it is.

    'http://creativecommons.org/licenses/by-nc/3.0/', 'CC BY-NC 3.0' and 'Attribution NonCommercial
    3.0' are 'CC-BY-NC-3.0'.
    """
    plain = text.strip().lower()
    if match := _ADDRESS.search(plain):
        kind, version = match.groups()
        named = {'zero': 'CC0', 'mark': 'PDM'}.get(kind, f'CC-{kind.upper()}')
        return f'{named}-{version}' if version else named
    if _ZERO.fullmatch(plain):
        return 'CC0-1.0'
    words = re.findall(r'[^\s_-]+', _SPLIT_WORD.sub(r'\1\2', plain))
    kinds = [_WORDS[word] for word in words if word in _WORDS]
    versions = [word for word in words if re.fullmatch(r'v?\d\.\d', word)]
    if 'BY' not in kinds or len(kinds) + len(versions) < len(words) or len(versions) > 1:
        return text.strip()
    return '-'.join(['CC', *filter(None, kinds), *(v.lstrip('v') for v in versions)])


def allows_commercial(text: str) -> bool:
    """Whether a licence is known, in all its parts, to permit commercial use."""
    plain = text.strip()
    parts = [plain] if _ADDRESS.fullmatch(plain.lower()) else _PARTS.split(plain)
    return all(map(_permits, map(name, parts))) if plain else False


def expanded(condition: Mapping[str, Any], index) -> dict[str, Any]:
    """``condition`` with 'licence_allows' as the licences of the index that do.

    Args:
      condition: see ``alm_jax.data.index.Index.rows_where``.
      index: alm_jax.data.index.Index.

    Raises:
      ConfigError: a use that is not known.
    """
    given = dict(condition)
    if 'licence_allows' not in given:
        return given
    use = given.pop('licence_allows')
    if use not in USES:
        raise ConfigError(f'where licence_allows {use!r}? {did_you_mean(str(use), USES)}')
    wanted = given.get('licence')
    wanted = {wanted} if isinstance(wanted, str) else wanted and set(wanted)
    chunks = index.table.column('licence').chunks
    present = {text for chunk in chunks for text in chunk.dictionary.to_pylist()}
    allowed = {text for text in present if allows_commercial(text)}
    return {**given, 'licence': sorted(allowed if wanted is None else allowed & wanted)}


def _permits(named: str) -> bool:
    return bool(_PERMISSIVE.fullmatch(named.lower()))
