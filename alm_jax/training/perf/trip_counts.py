"""How often the body of an HLO while loop runs."""

import re

from alm_jax.training.perf.hlo_text import Computation, Instruction, Module

_PASSED_ON = ('copy', 'bitcast', 'convert', 'copy-done', 'copy-start')


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """The count of ``loop``, an instruction of ``computation``; None where it is not known.

    As XLA notes it (backend_config, 'known_trip_count'), or of the form of scan and fori_loop: an
    index, compared with a constant, to which the body adds a constant.
    """
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if noted:
        return int(noted.group(1))
    condition = module.computations[loop.called('condition')[0]]
    body = module.computations[loop.called('body')[0]]
    ends = [value for i in condition.instructions if (value := _integer(i)) is not None]
    indices = {
        int(i.attribute('index')) for i in condition.instructions if i.opcode == 'get-tuple-element'
    }
    if len(ends) != 1 or len(indices) != 1 or 'direction=LT' not in _attributes(module, condition):
        return None
    index = indices.pop()
    start = _constant(computation, _element(computation, computation.operands(loop)[0], index))
    step = _step(body, index)
    return None if start is None or not step else max(0, -(-(ends[0] - start) // step))


def _attributes(module: Module, condition: Computation) -> str:
    """Of the comparison, which may stand in a fusion."""
    root = condition.root
    for name in root.called('calls'):
        root = module.computations[name].root
    return root.attributes


def _integer(instruction: Instruction) -> int | None:
    plain = instruction.opcode == 'constant' and not instruction.arrays[0].dims
    if plain and re.fullmatch(r'-?\d+', instruction.argument.strip()):
        return int(instruction.argument)
    return None


def _element(computation: Computation, carried: Instruction, index: int) -> Instruction | None:
    if carried.opcode != 'tuple':
        return None
    return computation.by_name.get(carried.operands[index])


def _constant(computation: Computation, found: Instruction | None) -> int | None:
    while found is not None and found.opcode in _PASSED_ON:
        found = computation.operands(found)[0]
    return None if found is None else _integer(found)


def _step(body: Computation, index: int) -> int | None:
    """What the body adds to the index."""
    after = _element(body, body.root, index)
    while after is not None and after.opcode in _PASSED_ON:
        after = body.operands(after)[0]
    if after is None or after.opcode != 'add':
        return None
    added = [value for i in body.operands(after) if (value := _constant(body, i)) is not None]
    return added[0] if len(added) == 1 else None
