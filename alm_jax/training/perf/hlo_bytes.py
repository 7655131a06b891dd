"""Bytes that an HLO instruction moves to and from a device's main memory.

A fusion reads its operands and writes its result; what is inside it stays in registers or caches.
An operand of which a slice is taken is read only so far, and one that is updated in place is
written only so far: otherwise a scan over stacked layers would seem to read the stack each time.
"""

from alm_jax.training.perf import attention_calls, collective_fusions
from alm_jax.training.perf.hlo_text import Array, Computation, Instruction, Module

SLICES = ('dynamic-slice', 'slice', 'gather')
_VIEWS = ('bitcast', 'reshape', 'get-tuple-element')
# Custom calls that name or reserve memory and move none.
_NO_CALLS = frozenset({'AllocateBuffer', 'AssumeGatherIndicesInBound', 'ConcatBitcast', 'Sharding'})
FREE = frozenset(
    {
        *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'domain'),
        *('while', 'conditional', 'call', 'async-start', 'async-update', 'async-done'),
        *('partition-id', 'replica-id', 'opt-barrier'),
    }
)


def moved(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Bytes read and written by one instruction outside fusions."""
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith('-done'):
        return 0.0
    operands = computation.operands(instruction)
    if opcode == 'fusion':
        inner = module.computations[instruction.called('calls')[0]]
        chain = collective_fusions.inside(module, instruction)
        if collective_fusions.ends(chain):
            return 0.0
        if collective_fusions.starts(chain):
            collective = collective_fusions.chained(chain)
            ends = (collective, *chain.operands(collective))
            return sum(a.main_bytes for end in ends for a in end.arrays)
        carried = collective_fusions.carried(inner)
        read = sum(
            _read(module, inner, value, operand.arrays)
            for index, operand in enumerate(operands)
            if (value := inner.parameter(index)).name not in carried
        )
        return read + _written(module, inner, instruction.arrays, carried)
    if opcode == 'custom-call':
        if instruction.attribute('custom_call_target').strip('"') in _NO_CALLS:
            return 0.0
        sources = [a for operand in operands for a in operand.arrays]
        read = sum(a.main_bytes for a in sources) + attention_calls.bytes_again(
            instruction, sources
        )
        return read + sum(a.main_bytes for a in instruction.arrays if not _is_scratch(a))
    if opcode in SLICES:
        return _slice(instruction.arrays[0], operands[0].arrays[0])
    if opcode == 'dynamic-update-slice':
        return 2 * operands[1].arrays[0].bytes if not instruction.arrays[0].space else 0.0
    if opcode == 'scatter':
        return 3 * operands[-1].arrays[0].main_bytes
    if opcode.endswith('-start'):
        result = instruction.arrays[:1] if opcode == 'copy-start' else instruction.arrays
        total = sum(a.main_bytes for a in result)
        source = sum(a.main_bytes for operand in operands for a in operand.arrays)
        # The tuple of a start repeats its operands.
        return total + source if opcode == 'copy-start' else max(total, source)
    read = sum(a.main_bytes for operand in operands for a in operand.arrays)
    return read + sum(a.main_bytes for a in instruction.arrays)


def _slice(result: Array, source: Array) -> float:
    return result.main_bytes + (0 if source.space else result.bytes)


def _read(
    module: Module, inner: Computation, value: Instruction, outer: tuple[Array, ...]
) -> float:
    """Bytes read of a fusion's operand, of which ``value`` is the name inside."""
    whole = sum(a.main_bytes for a in outer)
    return min(whole, _used(module, inner, value, whole)) if whole else 0.0


def _used(module: Module, inner: Computation, value: Instruction, whole: float) -> float:
    total = 0.0
    for user in inner.users(value.name):
        if user.opcode in SLICES and user.operands[0] == value.name:
            total += user.arrays[0].bytes
        elif user.opcode == 'dynamic-update-slice' and user.operands[0] == value.name:
            continue
        elif user.opcode in _VIEWS:
            total += _used(module, inner, user, whole)
        elif user.opcode == 'fusion':
            nested = module.computations[user.called('calls')[0]]
            places = [i for i, name in enumerate(user.operands) if name == value.name]
            total += sum(_used(module, nested, nested.parameter(i), whole) for i in places)
        else:
            return whole
    return total


def _is_scratch(array: Array) -> bool:
    """Whether it is what cuBLAS and cuDNN get to work in, which comes as one more result."""
    return array.dtype in ('s8', 'u8') and len(array.dims) == 1


def _written(
    module: Module,
    inner: Computation,
    outer: tuple[Array, ...],
    carried: frozenset[str] = frozenset(),
) -> float:
    root = inner.root
    parts = inner.operands(root) if root.opcode == 'tuple' else [root]
    if len(parts) != len(outer):
        return sum(a.main_bytes for a in outer)
    return sum(
        0.0 if array.space or part.name in carried else _part_written(module, inner, part, array)
        for part, array in zip(parts, outer)
    )


def _part_written(module: Module, inner: Computation, part: Instruction, array: Array) -> float:
    while part.opcode in _VIEWS and inner.operands(part):
        part = inner.operands(part)[0]
    if part.opcode == 'dynamic-update-slice':
        return inner.operands(part)[1].arrays[0].bytes
    if part.opcode == 'fusion':
        return _written(module, module.computations[part.called('calls')[0]], (array,))
    return array.bytes
