"""Reads what the profiler of JAX wrote: when which operation ran on which device.

The file is an XSpace (https://github.com/openxla/xla/blob/main/xla/tsl/profiler/protobuf/
xplane.proto): planes of devices and hosts, with lines of events. Operations of a CPU are in its
host's plane, on the lines of XLA's threads; those of a TPU or GPU in a plane of their own.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Collection

from jax.profiler import ProfileData

_COPIES = re.compile(r'memcpyh2d', re.IGNORECASE)  # CUDA's own events, beside operations
_OP = re.compile(r'%?([\w.\-]+)( = |$)')  # a TPU names an event by the text of its instruction
_DERIVED = ('Steps', 'XLA Modules', 'XLA TraceMe', 'Framework Ops', 'Source code')
_HOST = '/host:'


@dataclasses.dataclass(frozen=True)
class Event:
    """One operation.

    Attributes:
      name: of its instruction.
      device: on which it ran.
      program: id of the compiled program, where the profiler tells it.
      start, end: seconds.
    """

    name: str
    device: str
    program: int
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Trace:
    """What is in a file.

    Attributes:
      events: operations of the devices.
      copies: of the host's memory to a device, as GPUs tell of them: (device, start, end).
      spans: (start, end) in seconds of the annotations of the host that were asked for, by name.
    """

    events: list[Event]
    copies: list[tuple[str, float, float]]
    spans: dict[str, list[tuple[float, float]]]


def newest(folder: str | os.PathLike) -> pathlib.Path:
    """The last file that ``jax.profiler.stop_trace`` wrote under ``folder``.

    Raises:
      FileNotFoundError: there is none.
    """
    found = sorted(pathlib.Path(folder).glob('plugins/profile/*/*.xplane.pb'))
    if not found:
        raise FileNotFoundError(f'no *.xplane.pb under {folder}')
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def read(path: str | os.PathLike, annotations: Collection[str]) -> Trace:
    """The operations of all devices of this host, and where ``annotations`` were."""
    trace = Trace([], [], {name: [] for name in annotations})
    for plane in ProfileData.from_file(str(path)).planes:
        on_host = plane.name.startswith(_HOST)
        if not on_host and not plane.name.startswith('/device:'):
            continue
        for line in plane.lines:
            if not on_host and line.name in _DERIVED:
                continue
            for event in line.events:
                _sort(trace, event, None if on_host else plane.name)
    return trace


def _sort(trace: Trace, event, device: str | None) -> None:
    start, end = event.start_ns * 1e-9, (event.start_ns + event.duration_ns) * 1e-9
    if event.name in trace.spans:
        trace.spans[event.name].append((start, end))
        return
    stats = dict(event.stats)
    if 'hlo_op' not in stats and device is None:
        return
    if device and _COPIES.search(event.name):
        trace.copies.append((device, start, end))
        return
    name = _OP.match(str(stats.get('hlo_op', event.name)))
    if name:
        trace.events.append(
            Event(
                name=name.group(1),
                device=device or f'cpu {stats.get("device_ordinal", 0)}',
                program=int(stats.get('program_id', 0)),
                start=start,
                end=end,
            )
        )
