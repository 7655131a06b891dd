"""What it takes to read and write one family of other people's checkpoints."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn

from alm_jax.config import ConfigError
from alm_jax.interop import names

Config = Mapping[str, Any]  # the content of config.json


MOST_LAYERS = 1000  # a layer costs time and memory before any weight is looked at
# What a number in a config.json may be by its key, the first that fits. The sizes of a model decide
# what is made before any weight is looked at, and XLA aborts where the size of an array overflows.
_LARGEST = {
    'theta|freq': math.inf,
    'layers?$': MOST_LAYERS,
    'position|length': 1 << 24,
    'vocab|token|_id$': 1 << 20,
    '': 1 << 17,
}
_NO_MODEL = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)


def _check_sizes(key: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for inner, part in value.items():
            _check_sizes(inner, part)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_sizes(key, part)
    elif isinstance(value, int | float):
        most = next(most for words, most in _LARGEST.items() if re.search(words, key))
        if not abs(value) <= most:
            raise ConfigError(f'config.json: {key} is {value}; at most {most} is read.')


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model with its parameters. Families subclass it with what a user does with the model.

    Attributes:
      folder: where it was read from.
      config: the content of its config.json.
      module: the Linen module.
      params: parameter tree.
      extra: further collections, such as {'batch_stats': ...}.
    """

    folder: pathlib.Path
    config: Config
    module: nn.Module = dataclasses.field(repr=False)
    params: Any = dataclasses.field(repr=False)
    extra: Any = dataclasses.field(repr=False)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """``module.apply`` on the parameters: a dict of named intermediates."""
        return self.module.apply({'params': self.params, **self.extra}, *args, **options)


@dataclasses.dataclass(frozen=True)
class Family:
    """A family.

    Attributes:
      name: for messages and tables.
      model_types: of config.json.
      module: config -> Linen module. A missing key takes the default that the reference has.
      inputs: config -> arguments of ``module.init``; their values do not matter.
      table: config -> the name table.
      unused: regexes of tensors that have no place in the model, each for a reason.
      model: the class that users get.
      reference: library and class that the family is tested against.
    """

    name: str
    model_types: tuple[str, ...]
    module: Callable[[Config], nn.Module]
    inputs: Callable[[Config], tuple]
    table: Callable[[Config], names.Table]
    unused: tuple[str, ...] = ()
    model: type[Pretrained] = Pretrained
    reference: str = ''

    def shapes(self, config: Config) -> tuple[nn.Module, Any]:
        """(module, shapes of its variables by canonical name's tree): nothing is computed.

        Collections other than 'params' stand beside the parameters under their own names.

        Raises:
          ConfigError: the config describes no such model, or one beyond all sizes.
        """
        _check_sizes('', config)
        try:
            module = self.module(config)
            variables = jax.eval_shape(module.init, jax.random.key(0), *self.inputs(config))
        except ConfigError:
            raise
        except _NO_MODEL as error:  # a value of another type, sizes that do not go together
            said = ' '.join(str(error).split())[:300]
            raise ConfigError(
                f'config.json describes no {self.name}: {type(error).__name__}: {said}'
            ) from error
        variables = dict(variables)
        return module, {**variables.pop('params'), **variables}
