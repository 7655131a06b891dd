"""FLOPs of the products of an HLO program: dots, convolutions and the libraries' calls."""

import json
import math
import re

from alm_jax.training.perf import attention_calls
from alm_jax.training.perf.hlo_text import Array, Instruction

# Custom calls by which a compiler talks to itself.
NO_PRODUCTS = frozenset(
    {
        *('AllocateBuffer', 'AssumeGatherIndicesInBound', 'ConcatBitcast', 'Sharding', 'TopK'),
        *('SliceId', 'ZeroCrop'),  # of programs over several slices
        'GatherScatterIndicesBitpacked',  # packs the indices of a gather
    }
)


def dot(instruction: Instruction, lhs: Array) -> float:
    """2 m n k of a dot, a multiply-add being two."""
    contracted = instruction.integers('lhs_contracting_dims')
    return 2.0 * instruction.arrays[0].elements * math.prod(lhs.dims[i] for i in contracted)


def convolution(
    instruction: Instruction, lhs: Array, rhs: Array, result: Array | None = None
) -> float:
    """2 times the multiply-adds that meet an element of the input, not padding or a hole.

    Only these are work: TPU compilers write batched products as convolutions over dilated axes.
    Source: XLA, HloCostAnalysis::HandleConvolution.

    Args:
      instruction: has ``window`` and ``dim_labels``.
      lhs, rhs: of the forward convolution.
      result: of the forward convolution; None is that of ``instruction``.
    """
    result = instruction.arrays[0] if result is None else result
    inputs, kernel, output = re.split('_|->', instruction.attribute('dim_labels'))
    window = _window(instruction.attribute('window'))
    positions = 1
    for axis in sorted(set(kernel) - {'i', 'o'}):
        size = kernel.index(axis)
        options = {name: values[int(axis)] for name, values in window.items()}
        positions *= valid_positions(
            lhs.dims[inputs.index(axis)],
            rhs.dims[size],
            result.dims[output.index(axis)],
            **options,
        )
    batch_groups = int(instruction.attribute('batch_group_count') or 1)
    # The kernel's own 'i' is already that of one group.
    features = rhs.dims[kernel.index('i')] * result.dims[output.index('f')]
    rows = lhs.dims[inputs.index('b')] // batch_groups
    return 2.0 * features * rows * positions


def library_call(instruction: Instruction, operands: list[Array]) -> float | None:
    """FLOPs of a custom call; None where its text does not tell.

    cuBLAS and oneDNN products from their contracted sizes, cuDNN's convolutions as their forward
    ones, its fused attention as 4 b h t s d forward and 10 backward (Dao et al. 2022, flash
    attention: two and five products), that of jax for TPUs likewise, and any other kernel of Pallas
    by the estimate it declares.
    """
    target = instruction.attribute('custom_call_target').strip('"')
    if target in NO_PRODUCTS:
        return 0.0
    if 'matmul' in target or 'gemm' in target:
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        axes = [int(axis) for axis in re.findall(r'\d+', found.group(1))] if found else [-1]
        contracted = math.prod(operands[0].dims[axis] for axis in axes)
        return 2.0 * instruction.arrays[0].elements * contracted
    if target.startswith('__cudnn$conv'):
        first, second, result = operands[0], operands[1], instruction.arrays[0]
        if 'BackwardInput' in target:
            return convolution(instruction, result, second, first)
        if 'BackwardFilter' in target:
            return convolution(instruction, first, result, second)
        return convolution(instruction, first, second, result)
    if target.startswith('__cudnn$fmha'):
        query, key = operands[0], operands[1]
        b, t, h, d = query.dims
        return (10.0 if 'Backward' in target else 4.0) * b * h * t * key.dims[1] * d
    attention = attention_calls.flops(instruction, operands)
    if attention is not None:
        return attention
    estimate = re.search(r'"cost_estimate":(\{[^}]*\})', instruction.attributes)
    return float(json.loads(estimate.group(1)).get('flops', 0)) if estimate else None


def _window(text: str) -> dict[str, list]:
    """``{size=3x3 pad=1_1x1_1}`` -> options by name, one for each axis."""
    found = dict(re.findall(r'(\w+)=([\w\-]+)', text))
    axes = len(found.get('size', '').split('x')) if found.get('size') else 0

    def numbers(key, default):
        return [int(n) for n in found[key].split('x')] if key in found else [default] * axes

    pads = [p.split('_') for p in found['pad'].split('x')] if 'pad' in found else [(0, 0)] * axes
    return {
        'stride': numbers('stride', 1),
        'before': [int(pad[0]) for pad in pads],
        'lhs_dilation': numbers('lhs_dilate', 1),
        'rhs_dilation': numbers('rhs_dilate', 1),
    }


def valid_positions(
    inputs: int, kernel: int, outputs: int, stride=1, before=0, lhs_dilation=1, rhs_dilation=1
) -> int:
    """How many (output, kernel) positions meet an input, along one axis."""
    spread = (inputs - 1) * lhs_dilation
    count = 0
    for tap in range(kernel):
        offset = tap * rhs_dilation - before
        if lhs_dilation == 1:
            first = max(0, -(-(0 - offset) // stride))
            last = min(outputs - 1, (spread - offset) // stride)
            count += max(0, last - first + 1)
            continue
        places = (out * stride + offset for out in range(outputs))
        count += sum(0 <= at <= spread and at % lhs_dilation == 0 for at in places)
    return count
