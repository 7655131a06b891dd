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

_HOST = re.compile(r'/host:')
_DEVICE = re.compile(r'/device:\w+:\d+$')
_STREAM = 'Stream'  # lines of a GPU; other lines there sum these up
_OPS = 'XLA Ops'  # line of a TPU
_COPY = re.compile(r'memcpyh2d', re.IGNORECASE)  # CUDA's own events, beside operations
_OP = re.compile(r'%?([\w.\-]+)( = |$)')  # a TPU names an event by the text of its instruction


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
        device = plane.name if _DEVICE.match(plane.name) else None
        if device is None and not _HOST.match(plane.name):
            continue
        lines = list(plane.lines)
        if device is not None:
            streams = [line for line in lines if line.name.startswith(_STREAM)]
            lines = streams or [line for line in lines if line.name == _OPS]
        for line in lines:
            for event in line.events:
                _sort(trace, event, device)
    return trace


def _sort(trace: Trace, event, device: str | None) -> None:
    start, end = event.start_ns * 1e-9, (event.start_ns + event.duration_ns) * 1e-9
    if event.name in trace.spans:
        trace.spans[event.name].append((start, end))
        return
    stats = dict(event.stats)
    if 'hlo_op' not in stats and device is None:
        return
    if device is not None and _COPY.search(event.name):
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
