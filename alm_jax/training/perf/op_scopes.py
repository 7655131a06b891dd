"""Which part of a model an instruction of its compiled step belongs to.

JAX notes with every operation the path of Flax modules and named scopes that made it, and whether
differentiation did (``op_name`` in the metadata of HLO). A fusion has the name of its result.
"""

import dataclasses
import re

from alm_jax.training.perf import hlo_text
from alm_jax.training.perf.hlo_costs import KINDS
from alm_jax.training.perf.hlo_text import Computation, Instruction, Module

# Scopes that JAX adds itself for control flow and calls.
_CALLS = frozenset(
    {
        *('while', 'body', 'cond', 'scan', 'closed_call', 'core_call', 'pjit', 'shard_map'),
        *('checkpoint', 'remat', 'rematted_computation'),
        *('custom_jvp_call', 'custom_vjp_call', 'custom_lin'),
    }
)
_CONTAINERS = ('while', 'call', 'conditional')
_DERIVATIVES = ('jvp', 'transpose', 'vmap')  # whose argument is a scope
_REACH = 4  # instructions from one that has no name to one that has


@dataclasses.dataclass(frozen=True)
class Scope:
    """Of one instruction.

    Attributes:
      path: modules and named scopes, outermost first, such as ('audio', 'layers', 'mlp', 'up');
        () where there are none.
      backward: whether it is of the backward pass, recomputation included.
      collective: kind of it, of ``hlo_costs.KINDS``; '' for all else.
      container: whether its time is that of the instructions of another computation.
      op_name: as JAX noted it.
    """

    path: tuple[str, ...] = ()
    backward: bool = False
    collective: str = ''
    container: bool = False
    op_name: str = ''


def scopes(text: str) -> dict[str, Scope]:
    """The scope of every instruction by name.

    Args:
      text: of a compiled program, ``compiled.as_text()``.
    """
    module = hlo_text.parse(text)
    found = {}
    for computation in module.computations.values():
        users = _users(computation)
        for instruction in computation.instructions:
            name = _near_name(module, computation, users, instruction)
            kind = re.sub('-(start|done)$', '', instruction.opcode)
            path, backward = parse(name)
            found[instruction.name] = Scope(
                path=path,
                backward=backward,
                collective=kind if kind in KINDS else '',
                container=instruction.opcode in _CONTAINERS,
                op_name=name,
            )
    return found


def parse(op_name: str) -> tuple[tuple[str, ...], bool]:
    """The path of an ``op_name`` and whether it is of the backward pass.

    'jit(step)/transpose(jvp(TwoTower))/TwoTower.embed_text/text/while/body/layers/mlp/mul' is
    (('text', 'layers', 'mlp'), True): the class of the outermost module and its method, control
    flow, jitted functions and the primitive are left out.
    """
    path, backward = [], False
    for part in re.split(r'/(?![^(]*\))', op_name)[:-1]:
        while match := re.fullmatch(r'(\w+)\((.*)\)', part):
            backward |= match.group(1) == 'transpose'
            part = match.group(2) if match.group(1) in _DERIVATIVES else ''
        backward |= part == 'rematted_computation'
        module = re.fullmatch(r'([a-z]\w*)(\.\w+)?', part)  # and perhaps its method
        if module and module.group(1) not in (*_CALLS, *path[-1:]):
            path.append(module.group(1))
    return tuple(path), backward


def _name(instruction: Instruction) -> str:
    found = re.search(r'op_name="(jit\([^"]*)"', instruction.attributes)  # not the end of a path
    return found.group(1) if found else ''


def _users(computation: Computation) -> dict[str, list[Instruction]]:
    users: dict[str, list[Instruction]] = {}
    for instruction in computation.instructions:
        for name in instruction.operands:
            users.setdefault(name, []).append(instruction)
    return users


def _near_name(
    module: Module,
    computation: Computation,
    users: dict[str, list[Instruction]],
    instruction: Instruction,
) -> str:
    """Its own name, or for a copy that the compiler made, of what it holds, makes or serves."""
    if name := _name(instruction):
        return name
    for called in instruction.called('calls'):
        inner = [_name(i) for i in module.computations[called].instructions]
        if any(inner):
            return next(filter(None, reversed(inner)))
    near, seen = [instruction], {instruction.name}
    for _ in range(_REACH):
        after = [user for i in near for user in users.get(i.name, ())]
        before = [operand for i in near for operand in computation.operands(i)]
        near = [i for i in after + before if i.name not in seen]
        seen |= {i.name for i in near}
        if found := next(filter(None, map(_name, near)), ''):
            return found
    return ''
