"""Collectives that the TPU compiler puts into fusions.

To hide one behind computation it makes a chain of fusions, each of which names the collective
again: the first ends in ``AsyncCollectiveStart``, products carry it on while they compute, and the
last ends in ``AsyncCollectiveDone``. A reduce-scatter is an all-reduce in a fusion that keeps a
slice of the sum.
"""

import re

from alm_jax.training.perf.hlo_text import Computation, Instruction, Module

KINDS = (
    'all-reduce',
    'all-gather',
    'reduce-scatter',
    'all-to-all',
    'ragged-all-to-all',
    'collective-permute',
    'collective-broadcast',
)
_START, _DONE = 'AsyncCollectiveStart', 'AsyncCollectiveDone'
MARKS = frozenset({_START, _DONE})  # custom calls that compute nothing
_CHAIN = re.compile(r'chain_id="(\w+)"')


def inside(module: Module, fusion: Instruction) -> Computation | None:
    """The computation of a fusion that starts, carries on or ends a collective; None for others."""
    if fusion.opcode != 'fusion':
        return None
    inner = module.computations[fusion.called('calls')[0]]
    return inner if chained(inner) else None


def chained(inner: Computation) -> Instruction | None:
    """The collective of a chain that ``inner``, of a fusion, has a part in; None for none."""
    found = (i for i in inner.instructions if i.opcode in KINDS and _CHAIN.search(i.attributes))
    return next(found, None)


def starts(inner: Computation | None) -> bool:
    """Whether the fusion of ``inner``, from ``inside``, starts a collective."""
    return inner is not None and _START in inner.root.attributes


def ends(inner: Computation | None) -> bool:
    """Whether it ends one."""
    return inner is not None and _DONE in inner.root.attributes


def same(one: Computation, other: Computation) -> bool:
    """Whether both have a part in the same collective."""
    ids = [_CHAIN.search(chained(inner).attributes).group(1) for inner in (one, other)]
    return ids[0] == ids[1]


def carried(inner: Computation) -> frozenset[str]:
    """What a fusion passes on for a collective that is under way, and neither reads nor writes."""
    collective = chained(inner)
    if collective is None or inner.root.opcode != 'tuple':
        return frozenset()
    passed = [i.name for i in inner.operands(inner.root) if i.opcode == 'parameter']
    return frozenset([*passed, collective.name, *collective.operands])


def keeps_a_slice(inner: Computation) -> bool:
    """Whether an all-reduce in ``inner`` is a reduce-scatter."""
    return any(i.opcode == 'dynamic-slice' for i in inner.instructions)
