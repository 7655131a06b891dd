"""How another process makes an object again: from JSON and arrays, and without pickle.

A recipe calls classes and functions of the program with plain arguments, one after another. Those
that it may call are listed in the program of the process that reads it, written by the one that
starts that process; what is read holds numbers of that list and no names, so it can run nothing
else.
"""

import dataclasses
import json
import operator
import pathlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alm_jax.data.shared_memory import Buffer, Field, aligned

_PLAIN = (type(None), bool, int, float, str)
_FUNCTIONS = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_NUMBERS_AND_TEXTS = 'biufcSU'  # kinds of dtypes


class Recipe(NamedTuple):
    """A recipe in shared memory.

    Attributes:
      buffer: JSON, then the arrays.
      size: bytes of the JSON.
      modules: what the reading process is to import, for the callables.
      callables: Python expressions.
    """

    buffer: Buffer
    size: int
    modules: list[str]
    callables: list[str]


def write(value: Any) -> Recipe:
    """The recipe of an object; its buffer is to be closed.

    Args:
      value: plain data, arrays, paths, functions and classes of modules, dataclasses, and objects
        whose ``__reduce__`` gives (a function or class, its arguments); and what holds these.

    Raises:
      TypeError: any other object, or a function that only this process has, as a lambda.
    """
    writer = _Writer()
    what = writer.written(value)
    fields, end = [], 0
    for array in writer.arrays:
        fields.append(Field('', end, array.shape, array.dtype.str))
        end = aligned(end + array.nbytes)
    text = json.dumps({'steps': writer.steps, 'value': what, 'arrays': fields}).encode()
    buffer = Buffer()
    buffer.reserve(aligned(len(text)) + end)
    buffer.mapped()[: len(text)] = text
    for array, place in zip(writer.arrays, _arrays(buffer, len(text), fields)):
        place[...] = array
    modules, callables = zip(*map(_place, writer.callables)) if writer.callables else ((), ())
    names = [f'{module}.{name}' for module, name in zip(modules, callables)]
    return Recipe(buffer, len(text), sorted(set(modules)), names)


def read(buffer: Buffer, size: int, callables: Sequence[Callable]) -> Any:
    """The object of a recipe; its arrays lie in the buffer and cannot be written to.

    Args:
      buffer, size: see ``Recipe``.
      callables: what it may call, in the order of the recipe.
    """
    content = json.loads(buffer.mapped()[:size])
    arrays = _arrays(buffer, size, [Field(*field) for field in content['arrays']])
    for array in arrays:
        array.flags.writeable = False
    reader = _Reader(arrays, callables)
    for step in content['steps']:
        reader.do(*step)
    return reader.value(content['value'])


class _Writer:
    """Takes objects apart, each once. Steps stand in the order in which they can be done."""

    def __init__(self):
        self.steps: list[list] = []
        self.arrays: list[np.ndarray] = []
        self.callables: list[Callable] = []
        self._done: dict[int, tuple[int, Any]] = {}  # id -> step, object: kept, or ids come again

    def written(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is list:
            return [self.written(item) for item in value]
        if kind is tuple:
            return {'tuple': [self.written(item) for item in value]}
        if kind is dict:
            return {'dict': [[self.written(k), self.written(v)] for k, v in value.items()]}
        if kind is slice:
            return {'slice': [self.written(x) for x in (value.start, value.stop, value.step)]}
        if kind is bytes:
            return {'bytes': self._array(np.frombuffer(value, np.uint8))}
        if kind is np.ndarray and value.dtype.kind in _NUMBERS_AND_TEXTS:
            return {'array': self._array(value)}
        if isinstance(value, np.generic) and value.dtype.kind in _NUMBERS_AND_TEXTS:
            return {'scalar': self._array(np.asarray(value))}
        if isinstance(value, pathlib.Path):
            return {'path': str(value)}
        if isinstance(value, _FUNCTIONS):
            return {'callable': self._callable(value)}
        return {'made': self._step(value)}

    def _array(self, value: np.ndarray) -> int:
        self.arrays.append(value)
        return len(self.arrays) - 1

    def _callable(self, value: Callable) -> int:
        _place(value)  # tells at once when it has none
        if value not in self.callables:
            self.callables.append(value)
        return self.callables.index(value)

    def _step(self, value: Any) -> int:
        if id(value) not in self._done:
            function, arguments, options = _taken_apart(value)
            arguments = [self.written(item) for item in arguments]
            options = {name: self.written(item) for name, item in options.items()}
            self.steps.append([self._callable(function), arguments, options])
            self._done[id(value)] = len(self.steps) - 1, value
        return self._done[id(value)][0]


class _Reader:
    """Does the steps of a recipe."""

    def __init__(self, arrays: Sequence[np.ndarray], callables: Sequence[Callable]):
        self._arrays, self._callables = arrays, callables
        self._made: list[Any] = []

    def do(self, function: int, arguments: list, options: dict[str, Any]) -> None:
        arguments = self.value(arguments)
        options = {name: self.value(item) for name, item in options.items()}
        self._made.append(self._callables[function](*arguments, **options))

    def value(self, written: Any) -> Any:
        if isinstance(written, list):
            return [self.value(item) for item in written]
        if not isinstance(written, dict):
            return written
        ((kind, content),) = written.items()
        match kind:
            case 'tuple':
                return tuple(self.value(content))
            case 'dict':
                return dict(self.value(content))
            case 'slice':
                return slice(*self.value(content))
            case 'bytes':
                return self._arrays[content].tobytes()
            case 'array':
                return self._arrays[content]
            case 'scalar':
                return self._arrays[content][()]
            case 'path':
                return pathlib.Path(content)
            case 'callable':
                return self._callables[content]
            case 'made':
                return self._made[content]
        raise ValueError(f'a recipe has no {kind!r}')


def _taken_apart(value: Any) -> tuple[Callable, Sequence, Mapping[str, Any]]:
    """(function, arguments, keyword arguments) that give such an object."""
    if type(value).__reduce__ is not object.__reduce__:
        parts = value.__reduce__()
        if isinstance(parts, tuple) and len(parts) == 2:
            return *parts, {}
    elif dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return type(value), (), {name: getattr(value, name) for name in fields}
    raise TypeError(
        f'a {type(value).__module__}.{type(value).__qualname__} cannot be made again in another '
        'process: it is no dataclass, and its __reduce__ gives no (function, arguments).'
    )


def _place(value: Callable) -> tuple[str, str]:
    """(module, name in it)."""
    module, name = value.__module__, value.__qualname__
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except (AttributeError, KeyError):
        found = None
    if module == '__main__' or found != value:
        raise TypeError(
            f'{module}.{name} is not known in another process: define it at the top of a module '
            'that can be imported.'
        )
    return module, name


def _arrays(buffer: Buffer, size: int, fields: Sequence[Field]) -> list[np.ndarray]:
    """The arrays behind ``size`` bytes of JSON."""
    start = aligned(size)
    fields = [Field(str(i), start + f.offset, *f[2:]) for i, f in enumerate(fields)]
    return list(buffer.arrays(fields)[1].values())
