"""One compiled step as a report: memory, FLOPs, bytes, collectives, roofline."""

import dataclasses
import re
from typing import Any

from alm_jax.training.perf import hlo_costs, roofline
from alm_jax.training.perf.hardware import GIB
from alm_jax.training.perf.model_flops import ModelFlops
from alm_jax.training.perf.topology import Topology

_NEEDED = re.compile(r'([\d.]+)([KMGT]?)\)? (?:of|exceeds available)')
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def of_program(
    compiled: Any, flops: ModelFlops, topology: Topology, compile_seconds: float
) -> dict[str, Any]:
    """The report of a step that was compiled: ``compile/report.json``.

    Args:
      compiled: of jax's ahead-of-time compilation.
      flops: the model's, over the global batch.
      topology: that it was compiled for.
      compile_seconds: it took.

    Returns:
      'topology', 'devices', 'peak_bytes_per_device', 'capacity_bytes', 'fits', 'xla_flops' and
      'model_flops' (of all devices together), 'bytes_accessed' (of one), 'collectives' (of one),
      'roofline_seconds', 'roofline_mfu', 'bound_by', 'compile_seconds', and beside these
      'flops_ratio' (the front end apart), 'front_end_flops', 'memory', 'roofline', 'uncounted'.
    """
    costs = hlo_costs.costs(compiled.as_text())
    memory = memory_of(compiled)
    devices = len(topology.devices)
    found = roofline.estimate(costs, flops.model, topology.chip, devices, topology.torus)
    return {
        'topology': topology.name,
        'devices': devices,
        **_verdict(memory['peak'], topology),
        'xla_flops': costs.flops * devices,
        'model_flops': flops.model,
        'front_end_flops': flops.front_end,
        'flops_ratio': (costs.flops * devices - flops.front_end) / flops.model,
        'bytes_accessed': costs.bytes,
        'collectives': costs.collectives(),
        'roofline_seconds': found.seconds,
        'roofline_mfu': found.mfu,
        'bound_by': found.bound_by,
        'compile_seconds': compile_seconds,
        'memory': memory,
        'roofline': dataclasses.asdict(found),
        'uncounted': dict(costs.uncounted),
    }


def of_failure(error: Exception, topology: Topology, compile_seconds: float) -> dict[str, Any]:
    """The report of a step for which the compiler ran out of memory; what it has not is None.

    Raises:
      Exception: ``error`` itself, when it is of another kind.
    """
    text = str(error)
    if 'RESOURCE_EXHAUSTED' not in text:
        raise error
    needed = _NEEDED.search(text)
    peak = int(float(needed.group(1)) * _UNITS[needed.group(2)]) if needed else None
    missing = [
        'xla_flops',
        'model_flops',
        'bytes_accessed',
        'roofline_seconds',
        'roofline_mfu',
        'bound_by',
    ]
    return {
        'topology': topology.name,
        'devices': len(topology.devices),
        **_verdict(peak, topology),
        **dict.fromkeys(missing),
        'collectives': [],
        'compile_seconds': compile_seconds,
        'error': text.splitlines()[0],
    }


def memory_of(compiled: Any) -> dict[str, int]:
    """Bytes on one device: 'arguments', 'results', 'aliased' (results in donated arguments),
    'temporaries', 'program' and their 'peak', as if all temporaries lived at once; and on the host
    'host temporaries', which are no part of it."""
    found = compiled.memory_analysis()
    parts = {
        'arguments': found.argument_size_in_bytes,
        'results': found.output_size_in_bytes,
        'aliased': found.alias_size_in_bytes,
        'temporaries': found.temp_size_in_bytes,
        'program': found.generated_code_size_in_bytes,
    }
    total = sum(parts.values()) - 2 * parts['aliased']
    host = found.host_temp_size_in_bytes
    # The compilers' own peak is over all memories.
    peak = max(total, getattr(found, 'peak_memory_in_bytes', 0) - host)
    return {**parts, 'host temporaries': host, 'peak': peak}


def table(report: dict[str, Any]) -> str:
    """A report as text."""
    peak, capacity = report['peak_bytes_per_device'], report['capacity_bytes']
    rows = [
        ('topology', f'{report["topology"]}, {report["devices"]} devices'),
        ('compiled in', f'{report["compile_seconds"]:.1f} s'),
    ]
    if 'error' in report:
        needed = 'more' if peak is None else _gib(peak)
        rows += [('memory', f'OUT OF MEMORY: needs {needed} of {_gib(capacity)} a device')]
        return _lines(rows)
    verdict = f'fits, {1 - peak / capacity:.0%} free' if report['fits'] else 'OUT OF MEMORY'
    line = report['roofline']
    rows += [
        ('memory a device', f'{_gib(peak)} of {_gib(capacity)}: {verdict}'),
        *((f'  {name}', _gib(size)) for name, size in report['memory'].items() if name != 'peak'),
        ('FLOPs of the program', f'{report["xla_flops"]:.3e} (all devices, loops unrolled)'),
        ('FLOPs of the model', f'{report["model_flops"]:.3e}, ratio {report["flops_ratio"]:.2f}'),
        ('FLOPs of the front end', f'{report["front_end_flops"]:.3e}'),
        ('bytes moved a device', _gib(report['bytes_accessed'])),
    ]
    for entry in report['collectives']:
        size = f'{entry["count"]} times, {_gib(entry["bytes"])} a device'
        rows.append((f'  {entry["kind"]}', size))
    rows += [
        ('roofline', f'{report["roofline_seconds"] * 1e3:.3f} ms a step'),
        ('  compute', f'{line["compute"] * 1e3:.3f} ms'),
        ('  memory', f'{line["memory"] * 1e3:.3f} ms'),
        ('  transfers overlapped', f'{line["overlapped"] * 1e3:.3f} ms'),
        ('  transfers exposed', f'{line["exposed"] * 1e3:.3f} ms'),
        ('  all overlapped', f'{line["seconds_at_best"] * 1e3:.3f} ms'),
        ('  nothing overlapped', f'{line["seconds_at_worst"] * 1e3:.3f} ms'),
        ('MFU at the roofline', f'{report["roofline_mfu"]:.1%}, bound by {report["bound_by"]}'),
    ]
    if report['uncounted']:
        rows.append(('not counted', ', '.join(map(str, report['uncounted']))))
    return _lines(rows)


def _verdict(peak: int | None, topology: Topology) -> dict[str, Any]:
    capacity = topology.chip.memory_bytes
    return {
        'peak_bytes_per_device': peak,
        'capacity_bytes': capacity,
        'fits': peak is not None and peak <= capacity,
    }


def _gib(size: float) -> str:
    return f'{size / GIB:.3f} GiB'


def _lines(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return ''.join(f'{name.ljust(width)}  {value}\n' for name, value in rows)
