"""FLOPs and bytes of the attention kernels that jax has for TPUs, which declare none.

Products of both sides' blocks, masked ones included, as dense attention would count them; a block
that the kernel leaves out because of the causal order is counted all the same.
Source: ``jax.experimental.pallas.ops.tpu.splash_attention``.
"""

import math
import re

from alm_jax.training.perf.hlo_text import Array, Instruction

_NAME = re.compile(r'splash_m[hq]a_(fwd|dq|dkv)')
# Products of b h t s d multiply-adds: scores and result; scores, weights' gradient and queries';
# scores, weights' gradient, keys' and values', and when fused the queries' as well.
_PRODUCTS = {'fwd': 2, 'dq': 3, 'dkv': 4, 'fused': 5}


def flops(instruction: Instruction, operands: list[Array]) -> float | None:
    """Of a custom call, a multiply-add being two; None when it is another kernel."""
    phase = _phase(instruction)
    if not phase:
        return None
    query, key, *_ = _arrays(operands)
    return 2.0 * _PRODUCTS[phase] * query.elements * key.dims[-2]


def bytes_again(instruction: Instruction, operands: list[Array]) -> float:
    """Bytes that a kernel reads beyond its operands once; 0 for another kernel.

    Every block of the outer loop goes through all blocks of the inner one, which stay on the chip
    only when they are one: keys and values inside queries, or for their gradient the other way.
    """
    phase = _phase(instruction)
    if not phase:
        return 0.0
    query, key, value, *others = _arrays(operands)
    suffix = {'fwd': '', 'dq': '_dq'}.get(phase, '_dkv')
    queries = query.dims[-2] // _block(instruction, f'block_q{suffix}')
    keys = key.dims[-2] // _block(instruction, f'block_kv{suffix}')
    if suffix == '_dkv':
        inner = query.main_bytes + sum(other.main_bytes for other in others)
        return (keys - 1) * inner if queries > 1 else 0.0
    return (queries - 1) * (key.main_bytes + value.main_bytes) if keys > 1 else 0.0


def _phase(instruction: Instruction) -> str:
    found = _NAME.search(instruction.name) or _NAME.search(instruction.attributes)
    if 'tpu_custom_call' not in instruction.attributes or not found:
        return ''
    fused = re.search(r'use_fused_bwd_kernel\W+true', instruction.attributes)
    return 'fused' if fused and found.group(1) == 'dkv' else found.group(1)


def _arrays(operands: list[Array]) -> list[Array]:
    """Query, key, value and what follows; before them stand integers that say what is masked."""
    return [a for a in operands if re.match('b?f', a.dtype) and math.prod(a.dims) > 1]


def _block(instruction: Instruction, name: str) -> int:
    return int(re.search(rf'{name}\W+(\d+)', instruction.attributes).group(1))
