"""Reads the text of an optimised HLO module, as ``compiled.as_text()`` prints it.

Source: https://openxla.org/xla/operation_semantics and the printed form of XLA's HloModule.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {'pred': 8, 'token': 0, 'opaque': 0}
_ARRAY = re.compile(r'(\w+)\[([\d,<= ]*)\](\{[^}]*\})?')
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_CONTINUED = re.compile(r'\n(?="|\}\})')  # the metadata of a kernel is printed over several lines
_PARTITIONS = re.compile(r'\b(?:num_partitions|replica_count)=(\d+)')


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a shape.

    Attributes:
      dims: sizes.
      bytes: of the whole, as one device holds it: with the padding to whole tiles that a layout
        such as ``{1,0:T(8,128)}`` has, which doubles rows of 64.
      space: memory space of the layout; 0 is the device's main memory.
      dtype: as in the text, such as 'bf16'.
    """

    dims: tuple[int, ...]
    bytes: float
    space: int
    dtype: str = ''

    @property
    def elements(self) -> int:
        """Product of ``dims``."""
        return math.prod(self.dims)

    @property
    def main_bytes(self) -> float:
        """``bytes`` in the main memory; those of on-chip and host memories are not counted."""
        return 0 if self.space else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: ``name = arrays opcode(operands), attributes``."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    argument: str
    attributes: str
    root: bool

    def attribute(self, key: str) -> str:
        """The text of ``key=...`` up to its closing brace or the next comma; '' for none."""
        found = re.search(rf'\b{key}=(\{{[^}}]*\}}|[^,\s]+)', self.attributes)
        return found.group(1) if found else ''

    def integers(self, key: str) -> tuple[int, ...]:
        """The numbers of ``key={0,1}``."""
        return tuple(int(number) for number in re.findall(r'\d+', self.attribute(key)))

    def called(self, *keys: str) -> list[str]:
        """Names of the computations under the attributes ``keys``."""
        return [
            name.lstrip('%')
            for key in keys
            for name in re.findall(r'%?[\w.\-]+', self.attribute(key))
        ]


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in the order they are scheduled, and by name."""

    name: str
    instructions: tuple[Instruction, ...]
    by_name: dict[str, Instruction]

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """What ``instruction`` reads."""
        return [self.by_name[name] for name in instruction.operands if name in self.by_name]

    def users(self, name: str) -> list[Instruction]:
        """The instructions that read ``name``."""
        return [i for i in self.instructions if name in i.operands]

    @property
    def root(self) -> Instruction:
        """The result."""
        return next(i for i in reversed(self.instructions) if i.root)

    def parameter(self, index: int) -> Instruction:
        """The ``index``-th parameter."""
        return next(
            i
            for i in self.instructions
            if i.opcode == 'parameter' and i.argument.strip() == str(index)
        )


@dataclasses.dataclass(frozen=True)
class Module:
    """A whole program for one device.

    Attributes:
      entry: name of the computation that runs.
      computations: by name.
      devices: partitions times replicas.
    """

    entry: str
    computations: dict[str, Computation]
    devices: int


def parse(text: str) -> Module:
    """The module of ``text``.

    Raises:
      ValueError: there is no entry computation.
    """
    entry, computations = '', {}
    name, lines = '', []
    devices = 1
    for line in _CONTINUED.sub('', text).splitlines():
        if line.startswith('HloModule'):
            for number in _PARTITIONS.findall(line):
                devices *= int(number)
        elif (header := _HEADER.match(line)) and not line.startswith(' '):
            name, lines = header.group(2), []
            entry = name if header.group(1) else entry
        elif line.startswith('}') and name:
            found = tuple(lines)
            computations[name] = Computation(name, found, {i.name: i for i in found})
            name = ''
        elif name and (match := _INSTRUCTION.match(line)):
            lines.append(_instruction(*match.groups()))
    if entry not in computations:
        raise ValueError('the text holds no entry computation; is it an HLO module?')
    return Module(entry, computations, devices)


def arrays(shape: str) -> Iterator[Array]:
    """The arrays of a shape such as ``(f32[2,3]{1,0:S(1)}, pred[])``, in order."""
    for dtype, sizes, layout in _ARRAY.findall(shape):
        dims = tuple(int(size) for size in re.findall(r'\d+', sizes))
        space = re.search(r'S\((\d+)\)', layout)
        count = math.prod(_padded(dims, layout))
        yield Array(dims, count * _bits(dtype) / 8, int(space.group(1)) if space else 0, dtype)


def _padded(dims: tuple[int, ...], layout: str) -> list[int]:
    """``dims`` with those that the first tile of the layout covers rounded up to whole tiles."""
    sizes = list(dims)
    order = re.match(r'\{([\d,]*)', layout)
    tile = re.search(r'T\(([\d,]+)\)', layout)
    if order and tile:
        minor_first = [int(axis) for axis in re.findall(r'\d+', order.group(1))]
        spans = [int(span) for span in tile.group(1).split(',')]
        for axis, span in zip(minor_first, reversed(spans)):
            sizes[axis] = -(-sizes[axis] // span) * span
    return sizes


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    width = re.match(r'[a-z]+(\d+)', dtype)  # bf16, s4, f8e4m3fn, c64
    return int(width.group(1)) if width else 0


def _instruction(root: str | None, name: str, text: str) -> Instruction:
    end = _closing(text, 0) if text.startswith('(') else text.index(' ')
    shape, rest = text[:end], text[end:].lstrip()
    opening = rest.index('(')
    closing = _closing(rest, opening)
    argument = rest[opening + 1 : closing - 1]
    return Instruction(
        name=name,
        arrays=tuple(arrays(shape)),
        opcode=rest[:opening],
        operands=tuple(re.findall(r'%([\w.\-]+)', argument)),
        argument=argument,
        attributes=rest[closing:],
        root=bool(root),
    )


def _closing(text: str, opening: int) -> int:
    """The position after the bracket that closes the one at ``opening``."""
    depth = 0
    for position in range(opening, len(text)):
        depth += {'(': 1, ')': -1}.get(text[position], 0)
        if depth == 0:
            return position + 1
    return len(text)
