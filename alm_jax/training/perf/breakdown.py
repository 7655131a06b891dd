"""Where the time of a training step goes, on one page.

Every instant of the steps goes to one row, so that rows sum to the whole: to the operations that
run on a device just then, in equal parts if several do; else to a collective; else, when no
operation runs, to a copy to the device, to the wait for data, a checkpoint or an evaluation of the
host, or to idleness. So a collective or a copy beside which the device computes costs nothing. With
several devices a row is the mean over those of this host.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alm_jax.training.perf.op_scopes import Scope, parse
from alm_jax.training.perf.trace import Event, Trace

COLLECTIVES, COPIES, IDLE = 'collectives', 'host to device', 'idle'
OTHER, OTHER_PROGRAMS = 'other operations', 'other programs'
WINDOW = 'profiled_steps'  # annotation of the host around all steps
# annotation -> row, in the order in which they count
SPANS = {
    'host_to_device': COPIES,
    'checkpoint': 'checkpoint',
    'evaluation': 'evaluation',
    'data_wait': 'data wait',
}
_NOT_COMPUTE = (COLLECTIVES, *SPANS.values(), IDLE)
_PARTS, _OPERATIONS = 12, 8  # rows of a page
_DEPTH = 3  # of the path of a part
_LONG = 0.05  # of the time of the program that takes most


@dataclasses.dataclass(frozen=True)
class _Use:
    """What an instant is booked under: a row, and of an operation where it comes from."""

    row: str
    backward: bool = False
    part: str = ''
    name: str = ''
    op_name: str = ''


@dataclasses.dataclass(frozen=True)
class Breakdown:
    """Seconds of the mean step.

    Attributes:
      steps: (first, last) of the profile.
      devices: of this host.
      step_seconds: of wall time a step.
      rows: row -> {'forward': seconds, 'backward': seconds}; they sum to ``step_seconds``.
      parts: path of modules -> the same, of the computing rows, to a depth of three.
      operations: the slowest: {'name', 'op_name', 'seconds', 'runs'}, runs a step.
      collectives, copies: seconds that they took, hidden behind computation or not.
    """

    steps: tuple[int, int]
    devices: int
    step_seconds: float
    rows: dict[str, dict[str, float]]
    parts: dict[str, dict[str, float]]
    operations: list[dict[str, Any]]
    collectives: float
    copies: float


def analyse(
    trace: Trace, programs: Sequence[Mapping[str, Scope]], steps: tuple[int, int]
) -> Breakdown:
    """The breakdown of the window of a trace.

    Args:
      trace: with the spans WINDOW and those of SPANS.
      programs: scopes of the instructions of every kind of training step.
      steps: (first, last) in the window.

    Raises:
      ValueError: the trace has no window, or no operation in it.
    """
    if not trace.spans[WINDOW]:
        raise ValueError(f'it has no span {WINDOW!r}.')
    start, end = trace.spans[WINDOW][0]
    inside = [e for e in trace.events if e.end > start and e.start < end]
    if not inside:
        raise ValueError('it has no operations of a device.')
    devices = sorted({event.device for event in inside})
    count = (steps[1] - steps[0] + 1) * len(devices)
    known = _programs(inside, programs)
    spent: collections.Counter[_Use] = collections.Counter()
    for device in devices:
        spans = {row: list(trace.spans[name]) for name, row in SPANS.items()}
        spans[COPIES] += [(a, b) for where, a, b in trace.copies if where == device]
        own = [event for event in inside if event.device == device]
        spent.update(_spend(own, known, spans, start, end))
    mean = {use: seconds / count for use, seconds in spent.items()}
    uses = [(_use(event, known)[0], event) for event in inside]
    collectives = sum(e.end - e.start for use, e in uses if use.row == COLLECTIVES)
    copying = [(a, b, len(devices)) for a, b in trace.spans['host_to_device']]
    copying += [(a, b, 1) for _, a, b in trace.copies]
    copies = sum(n * max(min(b, end) - max(a, start), 0.0) for a, b, n in copying)
    return Breakdown(
        steps=steps,
        devices=len(devices),
        step_seconds=(end - start) * len(devices) / count,
        rows=_grouped(mean, 'row'),
        parts=_grouped({use: s for use, s in mean.items() if use.part}, 'part'),
        operations=_slowest(mean, collections.Counter(use for use, _ in uses), count),
        collectives=collectives / count,
        copies=copies / count,
    )


def _programs(
    events: Iterable[Event], programs: Sequence[Mapping[str, Scope]]
) -> dict[int, Mapping[str, Scope]]:
    """The scopes of each program id that is a kind of training step, which has all its names.

    Other programs run as well, such as those that put an array somewhere. They may have names of a
    step by chance, but the steps are the ones that take long.
    """
    ran = collections.defaultdict(collections.Counter)
    for event in events:
        ran[event.program][event.name] += event.end - event.start
    longest = max(sum(names.values()) for names in ran.values())
    found = {}
    for program, names in ran.items():
        best = max(programs, key=lambda scopes: sum(name in scopes for name in names))
        long = sum(names.values()) > _LONG * longest
        if long and sum(name in best for name in names) > len(names) / 2:
            found[program] = best
    return found


def _use(event: Event, known: Mapping[int, Mapping[str, Scope]]) -> tuple[_Use, bool]:
    """What an event is booked under, and whether it is a container."""
    if event.program not in known:
        return _Use(OTHER_PROGRAMS, part=OTHER_PROGRAMS, name=event.name), False
    scope = known[event.program].get(event.name, Scope())
    origin = {'name': event.name, 'op_name': scope.op_name}
    if scope.collective:
        return _Use(COLLECTIVES, **origin), False
    row = scope.path[0] if scope.path else OTHER
    part = '/'.join(scope.path[:_DEPTH])
    if len(scope.path) < 2:
        part = f'{row} (own)' if scope.path else row
    return _Use(row, scope.backward, part, **origin), scope.container


def _spend(
    events: Iterable[Event],
    known: Mapping[int, Mapping[str, Scope]],
    spans: Mapping[str, Sequence[tuple[float, float]]],
    start: float,
    end: float,
) -> collections.Counter[_Use]:
    """The seconds from ``start`` to ``end`` on one device."""
    edges = []  # (time, +1 or -1, level, use); of what is there, the lowest level counts
    for event in events:
        use, container = _use(event, known)
        level = 2 if container else 1 if use.row == COLLECTIVES else 0
        edges += [(event.start, 1, level, use), (event.end, -1, level, use)]
    for level, (row, found) in enumerate(spans.items(), start=3):
        for a, b in found:
            edges += [(a, 1, level, _Use(row)), (b, -1, level, _Use(row))]
    edges.append((end, 1, 0, _Use(IDLE)))  # so that the last edge is the end
    edges.sort(key=lambda edge: edge[0])
    active = [collections.Counter() for _ in range(3 + len(spans))]
    spent: collections.Counter[_Use] = collections.Counter()
    now = start
    for time, change, level, use in edges:
        time = min(max(time, start), end)
        if time > now:
            running = next(filter(None, active), {_Use(IDLE): 1})
            share = (time - now) / sum(running.values())
            for one, times in running.items():
                spent[one] += share * times
            now = time
        active[level][use] += change
        if not active[level][use]:
            del active[level][use]
    return spent


def _grouped(seconds: Mapping[_Use, float], field: str) -> dict[str, dict[str, float]]:
    """By a field and direction, longest first, what is no computation last."""
    found: dict[str, dict[str, float]] = {}
    for use, value in seconds.items():
        row = found.setdefault(getattr(use, field), {'forward': 0.0, 'backward': 0.0})
        row['backward' if use.backward else 'forward'] += value

    def order(name):
        place = _NOT_COMPUTE.index(name) if name in _NOT_COMPUTE else -1
        return place, -sum(found[name].values())

    return {name: found[name] for name in sorted(found, key=order)}


def _slowest(
    seconds: Mapping[_Use, float], runs: Mapping[_Use, int], count: int
) -> list[dict[str, Any]]:
    named = sorted((use for use in seconds if use.name), key=seconds.get, reverse=True)
    return [
        {
            'name': use.name,
            'op_name': use.op_name.split(':')[0],  # of several that were joined, the first
            'seconds': seconds[use],
            'runs': runs[use] / count,
        }
        for use in named[:_OPERATIONS]
    ]


def page(found: Breakdown) -> str:
    """A breakdown as text."""
    first, last = found.steps
    lines = [
        f'Steps {first} to {last} on {found.devices} device(s) of this host: '
        f'{found.step_seconds * 1e3:.2f} ms a step.',
        '',
        *_table('', found.rows, found.step_seconds),
        *_row('all', sum(sum(row.values()) for row in found.rows.values()), found.step_seconds),
        '',
        'Every instant counts once: as computation, else as a collective, a copy, waiting. Hidden',
        f'behind computation or not, collectives took {found.collectives * 1e3:.2f} ms a step and '
        f'copies {found.copies * 1e3:.2f} ms.',
        '',
        *_table('of which', dict(list(found.parts.items())[:_PARTS]), found.step_seconds),
        '',
        f'{"slowest operations":32}{"ms":>10}{"runs":>8}  made by',
    ]
    for one in found.operations:
        path, backward = parse(one['op_name'])
        made = '/'.join([*path, one['op_name'].rsplit('/', 1)[-1]]) + ', backward' * backward
        lines.append(f'{one["name"][:31]:32}{one["seconds"] * 1e3:10.2f}{one["runs"]:8.1f}  {made}')
    return '\n'.join(lines) + '\n'


def _table(title: str, rows: Mapping[str, Mapping[str, float]], whole: float) -> list[str]:
    lines = [f'{title:32}{"ms":>10}{"share":>8}{"forward":>10}{"backward":>10}']
    for name, row in rows.items():
        lines += _row(name, sum(row.values()), whole)
        if row['backward']:
            lines[-1] += f'{row["forward"] / whole:10.1%}{row["backward"] / whole:10.1%}'
    return lines


def _row(name: str, seconds: float, whole: float) -> list[str]:
    return [f'{name[:31]:32}{seconds * 1e3:10.2f}{seconds / whole:8.1%}']
