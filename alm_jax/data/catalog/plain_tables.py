"""Tables that some corpora ship as .pkl, read without pickle: plain values and nothing else.

Such a file is a program for a small stack machine. The operations that build dictionaries, lists,
tuples, sets, texts, bytes and numbers are carried out here; every other one, which could name or
call code, is refused by its name. A defaultdict is taken for the dictionary that it holds.
"""

import ast
import dataclasses
import re
import struct
from collections.abc import Callable
from typing import Any

from alm_jax.config import ConfigError

MOST_OPERATIONS = 20_000_000  # each is a byte or more, and may make a dictionary of dozens
# What is refused, by the names of the format's documentation.
_REFUSED = {
    b'b': 'BUILD', b'i': 'INST',
    b'o': 'OBJ', b'\x81': 'NEWOBJ', b'\x92': 'NEWOBJ_EX', b'\x82': 'EXT1', b'\x83': 'EXT2',
    b'\x84': 'EXT4', b'P': 'PERSID', b'Q': 'BINPERSID', b'\x97': 'NEXT_BUFFER',
    b'\x98': 'READONLY_BUFFER', b'\x96': 'BYTEARRAY8',
}  # fmt: skip
# Names that stand for nothing but data. They are never looked up: each is a mark of this module.
_DEFAULT_DICT = ('collections', 'defaultdict')
_FACTORIES = {
    (module, name) for module in ('builtins', '__builtin__') for name in ('list', 'dict', 'int')
}
_MARK = object()
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\"""")
_MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError)
_SCALARS = (str, bytes, int, float, bool, type(None))


class _Damaged(Exception):
    """What is wrong, without the file's name."""


def parse(content: bytes, name: str) -> Any:
    """The value that a .pkl file holds: None, bool, int, float, str, bytes and containers of them.

    Raises:
      ConfigError: it would run code (names the operation), or is damaged.
    """
    try:
        return _Machine(content).run()
    except _Damaged as error:
        raise ConfigError(f'{name}: {error}.') from None
    except (*_MALFORMED, struct.error, SyntaxError) as error:
        raise ConfigError(f'{name} is damaged: not a table of plain values ({error}).') from error


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name on the stack: (module, name), never the thing it names."""

    of: tuple[str, str]


class _Machine:
    def __init__(self, content: bytes):
        self._content = content
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._named = False

    def run(self) -> Any:
        for _ in range(MOST_OPERATIONS):
            opcode = self._take(1)
            if opcode == b'.':
                value = self._pop()
                if self._stack:
                    raise _Damaged('values are left over at its end')
                if self._named and _holds_name(value):
                    raise self._refused('GLOBAL')
                return value
            if opcode not in _OPERATIONS:
                if known := _REFUSED.get(opcode):
                    raise self._refused(known)
                raise _Damaged(f'unknown operation {opcode!r} at byte {self._at - 1}')
            _OPERATIONS[opcode](self)
        raise _Damaged(f'it has more than {MOST_OPERATIONS} operations')

    def _refused(self, operation: str) -> _Damaged:
        return _Damaged(
            f'operation {operation} near byte {self._at - 1} would name or call code, which is '
            'never done; only tables of plain values are read'
        )

    def _take(self, count: int) -> bytes:
        taken = self._content[self._at : self._at + count]
        if count < 0 or len(taken) < count:
            raise _Damaged('it is cut off')
        self._at += count
        return taken

    def _line(self) -> str:
        end = self._content.find(b'\n', self._at)
        if end < 0:
            raise _Damaged('it is cut off')
        line, self._at = self._content[self._at : end], end + 1
        return line.decode('latin-1')

    def _number(self, form: str) -> int | float:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _sized(self, form: str) -> bytes:
        return self._take(self._number(form))

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise _Damaged('a mark stands where a value is expected')
        return value

    def _to_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while at >= 0 and self._stack[at] is not _MARK:
            at -= 1
        if at < 0:
            raise _Damaged('a mark is missing')
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise _Damaged(f'a {kind.__name__} is missing')
        return self._stack[-1]

    def _keep(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def tuple_of(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self.push(tuple(values[::-1]))

    def set_items(self, values: list[Any]) -> None:
        self._top(dict).update(_pairs(values))

    def text_line(self) -> None:
        line = self._line()
        if not _QUOTED.fullmatch(line):  # Python's parser sees nothing but one quoted text
            raise _Damaged('a text is not in quotes')
        self.push(_as_text(ast.literal_eval('b' + line)))

    def integer_line(self) -> None:
        line = self._line().removesuffix('L')
        self.push({'00': False, '01': True}[line] if line in ('00', '01') else int(line))

    def name_line(self) -> None:
        self._name('GLOBAL', self._line(), self._line())

    def name_on_stack(self) -> None:
        name, module = self._pop(), self._pop()
        self._name('STACK_GLOBAL', module, name)

    def _name(self, operation: str, module: Any, name: Any) -> None:
        if (module, name) != _DEFAULT_DICT and (module, name) not in _FACTORIES:
            raise self._refused(f'{operation} {module} {name}')
        self._named = True
        self.push(_Name((module, name)))

    def default_dict(self) -> None:
        """REDUCE of a defaultdict, empty as it always is there; what it holds follows."""
        arguments, name = self._pop(), self._pop()
        factory = arguments[0] if isinstance(arguments, tuple) and len(arguments) == 1 else None
        if name != _Name(_DEFAULT_DICT) or not (
            arguments == () or (isinstance(factory, _Name) and factory.of in _FACTORIES)
        ):
            raise self._refused('REDUCE')
        self.push({})

    def long_integer(self, form: str) -> None:
        self.push(int.from_bytes(self._sized(form), 'little', signed=True))


def _holds_name(value: Any) -> bool:
    """Whether a name is left among the values."""
    found, seen = [value], set()
    while found:
        part = found.pop()
        if isinstance(part, _Name):
            return True
        if isinstance(part, dict | list | tuple | set | frozenset) and id(part) not in seen:
            seen.add(id(part))
            found.extend(part.values() if isinstance(part, dict) else part)
    return False


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(_keys(values[::2]), values[1::2], strict=True))


def _keys(values: list[Any]) -> list[Any]:
    """The hash of a tuple in a tuple in a tuple ... would overflow the interpreter's stack."""
    for value in values:
        parts = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(part, _SCALARS) for part in parts):
            raise _Damaged(f'a {type(value).__name__} is not a key that tables have')
    return values


def _as_text(value: bytes) -> str:
    """Python 2 text is bytes: UTF-8, or Latin-1 where it is not."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode('latin-1')


def _utf8(content: bytes) -> str:
    return content.decode('utf-8', 'surrogatepass')


_OPERATIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b'\x80': lambda m: m._take(1),  # PROTO
    b'\x95': lambda m: m._take(8),  # FRAME
    b'(': lambda m: m.push(_MARK),
    b'0': lambda m: m._stack.pop(),
    b'1': lambda m: m._to_mark(),
    b'2': lambda m: m.push(m._stack[-1]),
    b'N': lambda m: m.push(None),
    b'\x88': lambda m: m.push(True),
    b'\x89': lambda m: m.push(False),
    b'I': lambda m: m.integer_line(),
    b'L': lambda m: m.integer_line(),
    b'J': lambda m: m.push(m._number('<i')),
    b'K': lambda m: m.push(m._number('<B')),
    b'M': lambda m: m.push(m._number('<H')),
    b'\x8a': lambda m: m.long_integer('<B'),
    b'\x8b': lambda m: m.long_integer('<i'),
    b'F': lambda m: m.push(float(m._line())),
    b'G': lambda m: m.push(m._number('>d')),
    b'S': lambda m: m.text_line(),
    b'T': lambda m: m.push(_as_text(m._sized('<i'))),
    b'U': lambda m: m.push(_as_text(m._sized('<B'))),
    b'V': lambda m: m.push(m._line().encode('latin-1').decode('raw-unicode-escape')),
    b'X': lambda m: m.push(_utf8(m._sized('<I'))),
    b'\x8c': lambda m: m.push(_utf8(m._sized('<B'))),
    b'\x8d': lambda m: m.push(_utf8(m._sized('<Q'))),
    b'B': lambda m: m.push(m._sized('<I')),
    b'C': lambda m: m.push(m._sized('<B')),
    b'\x8e': lambda m: m.push(m._sized('<Q')),
    b'c': lambda m: m.name_line(),
    b'\x93': lambda m: m.name_on_stack(),
    b'R': lambda m: m.default_dict(),
    b'}': lambda m: m.push({}),
    b']': lambda m: m.push([]),
    b')': lambda m: m.push(()),
    b'\x8f': lambda m: m.push(set()),
    b'd': lambda m: m.push(dict(_pairs(m._to_mark()))),
    b'l': lambda m: m.push(m._to_mark()),
    b't': lambda m: m.push(tuple(m._to_mark())),
    b'\x91': lambda m: m.push(frozenset(_keys(m._to_mark()))),
    b'\x85': lambda m: m.tuple_of(1),
    b'\x86': lambda m: m.tuple_of(2),
    b'\x87': lambda m: m.tuple_of(3),
    b'a': lambda m: (lambda v: m._top(list).append(v))(m._pop()),
    b'e': lambda m: (lambda v: m._top(list).extend(v))(m._to_mark()),
    b's': lambda m: (lambda v, k: m.set_items([k, v]))(m._pop(), m._pop()),
    b'u': lambda m: m.set_items(m._to_mark()),
    b'\x90': lambda m: (lambda v: m._top(set).update(_keys(v)))(m._to_mark()),
    b'p': lambda m: m._keep(int(m._line())),
    b'q': lambda m: m._keep(m._number('<B')),
    b'r': lambda m: m._keep(m._number('<I')),
    b'\x94': lambda m: m._keep(len(m._memo)),
    b'g': lambda m: m.push(m._memo[int(m._line())]),
    b'h': lambda m: m.push(m._memo[m._number('<B')]),
    b'j': lambda m: m.push(m._memo[m._number('<I')]),
}
