"""How long a step takes at least, from its costs and the published figures of the hardware.

Williams et al. 2009 (https://doi.org/10.1145/1498765.1498785), with the network as a third roof.
"""

import dataclasses
import math
from collections.abc import Sequence

from alm_jax.training.perf.hardware import Chip
from alm_jax.training.perf.hlo_costs import Costs, Transfer


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step on every device.

    Attributes:
      compute: products at the peak of bfloat16.
      memory: main memory at its bandwidth.
      overlapped: transfers that the program starts, computes beside, and ends.
      exposed: all other transfers.
      seconds: the longest of compute, memory and overlapped, and after it the exposed ones.
      seconds_at_best: were everything overlapped.
      seconds_at_worst: were nothing.
      mfu: model FLOPs over what the devices could do in ``seconds`` (Chowdhery et al. 2022,
        https://arxiv.org/abs/2204.02311, appendix B).
      bound_by: 'compute', 'memory' or 'communication', whichever takes longest.
    """

    compute: float
    memory: float
    overlapped: float
    exposed: float
    seconds: float
    seconds_at_best: float
    seconds_at_worst: float
    mfu: float
    bound_by: str


def estimate(
    costs: Costs, model_flops: float, chip: Chip, devices: int, torus: Sequence[int] = ()
) -> Roofline:
    """The roofline of a program.

    Args:
      costs: of one device.
      model_flops: of all devices together, see ``model_flops``.
      chip, devices: what it runs on.
      torus: chips along each axis; () where devices are behind a switch.
    """
    compute = costs.flops / chip.peak_flops
    memory = costs.bytes / chip.memory_bandwidth
    hidden = exposed = 0.0
    for transfer, (_, size) in costs.transfers.items():
        seconds = transfer_seconds(transfer, size, chip, torus)
        if transfer.overlapped:
            hidden += seconds
        else:
            exposed += seconds
    parts = {'compute': compute, 'memory': memory, 'communication': hidden + exposed}
    seconds = max(compute, memory, hidden) + exposed
    return Roofline(
        compute=compute,
        memory=memory,
        overlapped=hidden,
        exposed=exposed,
        seconds=seconds,
        seconds_at_best=max(parts.values()),
        seconds_at_worst=sum(parts.values()),
        mfu=model_flops / (devices * chip.peak_flops * seconds) if seconds else 0.0,
        bound_by=max(parts, key=parts.get),
    )


def transfer_seconds(
    transfer: Transfer, size: float, chip: Chip, torus: Sequence[int] = ()
) -> float:
    """Of ring algorithms, which send the least (Thakur et al. 2005, section 4).

    A group of n sends (n - 1) / n of its bytes, an all-reduce twice that, a permutation all, over
    one link. Of a torus a group uses the two links of each axis that it needs, the long axes first.
    """
    if transfer.group < 2:
        return 0.0
    bandwidth = _bandwidth(transfer, chip, torus)
    if transfer.kind in ('collective-permute', 'collective-broadcast'):
        return size / bandwidth
    turns = 2 if transfer.kind == 'all-reduce' else 1
    return turns * size * (transfer.group - 1) / transfer.group / bandwidth


def _bandwidth(transfer: Transfer, chip: Chip, torus: Sequence[int]) -> float:
    if transfer.group > min(chip.domain, math.prod(torus) if torus else chip.domain):
        return chip.beyond_bandwidth
    if chip.links == 1:
        return chip.link_bandwidth
    if transfer.kind == 'collective-permute':
        return chip.link_bandwidth / chip.links
    reach, axes = 1, 0
    for size in sorted(torus, reverse=True):
        reach, axes = reach * size, axes + 1
        if reach >= transfer.group:
            break
    return chip.link_bandwidth * min(1.0, 2 * axes / chip.links)
