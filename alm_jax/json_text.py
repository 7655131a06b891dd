"""JSON that came from anywhere: parsed into plain values that no walk over them can drown in."""

import json
from typing import Any

from alm_jax.config import ConfigError

DEEPEST = 100  # values in values; whatever walks a value has stack for these


def parse(content: str | bytes, name: str, *, unique: bool = False) -> Any:
    """The value of a JSON text.

    Args:
      content: the text.
      name: what messages call it, such as its file.
      unique: whether a key that stands twice in an object is a mistake; else the last one counts.

    Raises:
      ConfigError: it is no JSON, or nested deeper than DEEPEST.
    """
    try:
        value = json.loads(content, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise _too_deep(name) from None
    except ValueError as error:
        raise ConfigError(f'{name}: not JSON ({error}).') from error
    check_depth(value, content, name)
    return value


def parse_object(content: str | bytes, name: str, *, unique: bool = False) -> dict[str, Any]:
    """``parse``, and a ConfigError for what is no object."""
    value = parse(content, name, unique=unique)
    if not isinstance(value, dict):
        raise ConfigError(f'{name}: {value!r:.100}; expected an object.')
    return value


def check_depth(value: Any, content: str | bytes, name: str) -> None:
    """Raises ConfigError when a value, parsed from ``content``, is nested deeper than DEEPEST."""
    # What opens few lists and objects is not deep; most of what is read ends here.
    opening = ('[', '{') if isinstance(content, str) else (b'[', b'{')
    if sum(map(content.count, opening)) <= DEEPEST:
        return
    level = [value]
    for _ in range(DEEPEST):  # a loop, as a recursion is what is guarded against
        inner = (part.values() if isinstance(part, dict) else part for part in level)
        level = [part for parts in inner for part in parts if isinstance(part, dict | list)]
        if not level:
            return
    raise _too_deep(name)


def _too_deep(name: str) -> ConfigError:
    return ConfigError(f'{name}: JSON that is nested deeper than {DEEPEST} is not read.')


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'{next(key for key in made if keys.count(key) > 1)!r} stands there twice')
    return made
