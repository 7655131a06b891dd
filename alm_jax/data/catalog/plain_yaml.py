"""YAML that came from anywhere: plain values by the safe loader, after a look at its structure.

The safe loader makes no objects, but it recurses, and a merge key ('<<') of merge keys of merge
keys ... is copied out: forty lines become more than any memory. Tables have no need of either.
"""

from typing import Any

import yaml

from alm_jax.config import ConfigError

DEEPEST = 100  # values in values
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)  # either is safe_load's
_MERGE = '<<'


def parse(content: bytes, name: str) -> Any:
    """The value of a YAML file.

    Raises:
      ConfigError: it is no YAML, has a tag that would make an object, a merge key, or is nested
        deeper than DEEPEST; names the file ``name``.
    """
    try:
        depth = 0
        for event in yaml.parse(content, _LOADER):  # a stream: nothing is built yet
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ConfigError(f'{name}: YAML that is nested deeper than {DEEPEST} is not read.')
            if isinstance(event, yaml.ScalarEvent) and event.value == _MERGE:
                raise ConfigError(f'{name}: merge keys ({_MERGE}) are not read; write them out.')
        return yaml.load(content, _LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f'{name} cannot be read as YAML: {error}') from error
