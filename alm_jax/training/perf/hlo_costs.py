"""FLOPs, bytes and collectives of a compiled program, loops counted as often as they run.

XLA's own cost analysis counts the body of a loop once, so a scan over 12 layers looks like one.
"""

import collections
import dataclasses
import functools
import math
import re

from alm_jax.training.perf import collective_fusions, hlo_bytes, hlo_text, product_flops
from alm_jax.training.perf.collective_fusions import KINDS
from alm_jax.training.perf.hlo_text import Computation, Instruction, Module
from alm_jax.training.perf.trip_counts import trip_count

# replica_groups=mesh['x'=2,'y'=4], device_ids=([8]) {'y'}: groups along an axis of a mesh.
_MESH_GROUPS = re.compile(r'replica_groups=mesh\[([^\]]*)\](?:, device_ids=[^{]*)?\s*\{([^}]*)\}')
# Between a start and its done, these do enough to hide a transfer.
_COMPUTE = ('fusion', 'convolution', 'dot', 'custom-call', 'while', 'call', 'conditional')


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What one collective is.

    Attributes:
      kind: of KINDS.
      group: devices that take part in one.
      overlapped: whether computation is scheduled between its start and its done.
    """

    kind: str
    group: int
    overlapped: bool


@dataclasses.dataclass
class Costs:
    """Of one device.

    Attributes:
      flops: of dots, convolutions and library products, a multiply-add being two.
      bytes: read from and written to main memory.
      transfers: Transfer -> [count, bytes]: of the larger side of each, which is the operand but
        for an all-gather, whose result is larger.
      uncounted: names of custom calls whose FLOPs are not known, and of loops whose trip count is
        not, which were counted once -> how many.
    """

    flops: float = 0.0
    bytes: float = 0.0
    transfers: dict[Transfer, list[float]] = dataclasses.field(default_factory=dict)
    uncounted: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def add(self, other: 'Costs', times: int = 1) -> None:
        """Adds ``times`` the costs of another."""
        self.flops += times * other.flops
        self.bytes += times * other.bytes
        for transfer, (count, size) in other.transfers.items():
            mine = self.transfers.setdefault(transfer, [0, 0.0])
            mine[0] += times * count
            mine[1] += times * size
        for name, count in other.uncounted.items():
            self.uncounted[name] += times * count

    def collectives(self) -> list[dict[str, float | str | int]]:
        """{'kind', 'count', 'bytes'} of every kind, the largest first."""
        kinds: dict[str, list[float]] = {}
        for transfer, (count, size) in self.transfers.items():
            total = kinds.setdefault(transfer.kind, [0, 0.0])
            total[0] += count
            total[1] += size
        rows = [{'kind': k, 'count': int(c), 'bytes': int(b)} for k, (c, b) in kinds.items()]
        return sorted(rows, key=lambda row: -row['bytes'])


def costs(text: str) -> Costs:
    """The costs of one run of an optimised HLO module on each device.

    Args:
      text: ``compiled.as_text()``.

    Raises:
      ValueError: it is no HLO module.
    """
    module = hlo_text.parse(text)

    @functools.cache
    def of(name: str, fused: bool) -> Costs:
        total = Costs()
        computation = module.computations[name]
        for instruction in computation.instructions:
            _count(total, module, computation, instruction, fused, of)
        return total

    return of(module.entry, False)


def _count(
    total: Costs,
    module: Module,
    computation: Computation,
    instruction: Instruction,
    fused: bool,
    of,
) -> None:
    """Adds one instruction and what it calls; inside a fusion nothing goes to main memory."""
    opcode = instruction.opcode
    total.flops += _flops(computation, instruction, total)
    if not fused:
        total.bytes += hlo_bytes.moved(module, computation, instruction)
    within, collective = _collective(module, computation, instruction)
    if collective and not (fused and collective is collective_fusions.chained(computation)):
        _transfer(total, module, computation, instruction, within, collective, fused)
    if opcode == 'while':
        times = trip_count(module, computation, instruction)
        if times is None:
            total.uncounted[f'while {instruction.name}'] += 1
        total.add(of(instruction.called('body')[0], fused), 1 if times is None else times)
    elif opcode == 'conditional':
        keys = ('branch_computations', 'true_computation', 'false_computation')
        branches = [of(name, fused) for name in instruction.called(*keys)]
        total.add(max(branches, key=lambda branch: branch.flops))
    elif opcode == 'fusion':
        total.add(of(instruction.called('calls')[0], True))
    elif opcode in ('call', 'async-start') and not collective:
        for name in instruction.called('to_apply', 'calls', 'called_computations'):
            total.add(of(name, fused))


def _flops(computation: Computation, instruction: Instruction, total: Costs) -> float:
    if instruction.opcode not in ('dot', 'convolution', 'custom-call'):
        return 0.0
    operands = [operand.arrays[0] for operand in computation.operands(instruction)]
    if instruction.opcode == 'dot':
        return product_flops.dot(instruction, operands[0])
    if instruction.opcode == 'convolution':
        return product_flops.convolution(instruction, *operands)
    target = instruction.attribute('custom_call_target').strip('"')
    if target in collective_fusions.MARKS:
        return 0.0
    found = product_flops.library_call(instruction, operands)
    if found is None:
        total.uncounted[target] += 1
    return found or 0.0


def _collective(
    module: Module, computation: Computation, instruction: Instruction
) -> tuple[Computation, Instruction | None]:
    """What an instruction transfers or starts to, and where it is; a pair is counted once."""
    inner = collective_fusions.inside(module, instruction)
    if instruction.opcode == 'async-start':
        inner = module.computations[instruction.called('calls')[0]]
    elif not collective_fusions.starts(inner):
        kind = instruction.opcode.removesuffix('-start')
        return computation, instruction if kind in KINDS else None
    return inner, next((i for i in inner.instructions if i.opcode in KINDS), None)


def _transfer(
    total: Costs,
    module: Module,
    computation: Computation,
    instruction: Instruction,
    within: Computation,
    collective: Instruction,
    fused: bool,
) -> None:
    """Adds ``collective`` of ``within``, which ``instruction`` of ``computation`` is or starts."""
    kind = collective.opcode.removesuffix('-start')
    if kind == 'all-reduce' and fused and collective_fusions.keeps_a_slice(computation):
        kind = 'reduce-scatter'
    group = _group(collective, module.devices)
    size = sum(a.bytes for operand in within.operands(collective) for a in operand.arrays)
    size *= group if kind == 'all-gather' else 1
    transfer = Transfer(kind, group, _overlapped(module, computation, instruction))
    mine = total.transfers.setdefault(transfer, [0, 0.0])
    mine[0] += 1
    mine[1] += size


def _group(instruction: Instruction, devices: int) -> int:
    """Devices of one group: replica_groups lists them, or tells their shape, or mesh axes."""
    text = instruction.attributes
    if 'source_target_pairs' in text:
        return 2
    if found := re.search(r'replica_groups=\{\{([\d,]+)\}', text):
        return found.group(1).count(',') + 1
    if found := re.search(r'replica_groups=\[\d+,(\d+)\]<=', text):
        return int(found.group(1))
    if found := _MESH_GROUPS.search(text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found.group(2)))
    return devices


def _overlapped(module: Module, computation: Computation, start: Instruction) -> bool:
    """Whether something computes after ``start``, of a pair or a chain, and before its done."""
    chain = collective_fusions.inside(module, start)
    if not start.opcode.endswith('-start') and not chain:
        return False
    begun = False
    for instruction in computation.instructions:
        if instruction.name == start.name:
            begun = True
            continue
        inner = collective_fusions.inside(module, instruction) if begun else None
        if not begun or collective_fusions.starts(inner):
            continue
        if collective_fusions.ends(inner):
            if chain and collective_fusions.same(chain, inner):
                return False
        elif not chain and start.name in instruction.operands:
            return False
        elif instruction.opcode in _COMPUTE:
            return True
    return False
