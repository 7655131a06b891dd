"""Scopes of operations by their names, and rows of a step whose operations are known."""

import re

import pytest

from alm_jax.training.perf import breakdown, op_scopes
from alm_jax.training.perf.breakdown import SPANS, WINDOW
from alm_jax.training.perf.op_scopes import Scope
from alm_jax.training.perf.trace import Event, Trace

STEP = 'jit(train_step)/'


@pytest.mark.parametrize(
    ('op_name', 'path', 'backward'),
    [
        ('jvp(TwoTower)/TwoTower.embed_text/text/while/body/layers/mlp/mul', 'text layers mlp', 0),
        ('transpose(jvp(TwoTower))/TwoTower.embed_text/text/layers/dot', 'text layers', 1),
        ('jvp(TwoTower)/audio/checkpoint/rematted_computation/layers/dot', 'audio layers', 1),
        ('jvp(TwoTower)/audio/audio.features/bqhd,bkhd->bhqk/dot', 'audio', 0),
        ('jvp(front_end)/shard_map/jit(_pad)/pad', 'front_end', 0),
        ('optimizer/jit(_where)/select_n', 'optimizer', 0),
        ('vmap(objective)/make.<locals>.inner/add', 'objective', 0),
        ('jit(floor_divide)/sign', '', 0),
    ],
)
def test_a_name_tells_module_and_direction(op_name, path, backward):
    assert op_scopes.parse(STEP + op_name) == (tuple(path.split()), bool(backward))


PROGRAM = re.sub(
    r'@(\S+)',
    r'metadata={op_name="\1"}',
    """HloModule jit_train_step, is_scheduled=true

%body (p: (f32[4])) -> (f32[4]) {
  %p = (f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%p), index=0
  %dot.1 = f32[4]{0} add(%x, %x), @jit(s)/jvp(M)/audio/while/body/mlp/dot
  ROOT %t = (f32[4]{0}) tuple(%dot.1)
}

%cond (q: (f32[4])) -> pred[] {
  %q = (f32[4]{0}) parameter(0)
  ROOT %c = pred[] constant(true)
}

%fused (f: f32[4]) -> f32[4] {
  %f = f32[4]{0} parameter(0)
  ROOT %n = f32[4]{0} negate(%f), @jit(s)/optimizer/neg
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %copy.1 = f32[4]{0} copy(%a)
  %tuple = (f32[4]{0}) tuple(%copy.1)
  %while.1 = (f32[4]{0}) while(%tuple), condition=%cond, body=%body, @jit(s)/jvp(M)/audio/while
  %y = f32[4]{0} get-tuple-element(%while.1), index=0
  %dot.2 = f32[4]{0} add(%y, %y), @jit(s)/transpose(jvp(M))/text/mlp/dot
  %all-reduce-start.1 = f32[4]{0} all-reduce-start(%dot.2), to_apply=%fused
  %all-reduce-done.1 = f32[4]{0} all-reduce-done(%all-reduce-start.1)
  ROOT %fusion.1 = f32[4]{0} fusion(%all-reduce-done.1), kind=kLoop, calls=%fused
}
""",
)


def test_operations_without_a_name_take_that_of_what_they_hold_or_serve():
    found = op_scopes.scopes(PROGRAM)
    assert found['copy.1'].path == ('audio',)
    assert found['fusion.1'].path == ('optimizer',)
    assert found['while.1'].container
    assert found['dot.1'].path == ('audio', 'mlp')
    assert found['dot.2'] == Scope(
        ('text', 'mlp'), True, op_name='jit(s)/transpose(jvp(M))/text/mlp/dot'
    )
    assert found['all-reduce-done.1'].collective == 'all-reduce'


def event(name, start, end, device='cpu 0', program=1):
    return Event(name, device, program, start, end)


# Two steps in ten seconds.
EVENTS = [
    event('while.1', 0, 4),  # holds what follows
    event('dot.1', 1, 3),
    event('dot.2', 2, 4),  # at the same time as dot.1 for a second
    event('all-reduce-start.1', 3.5, 5),  # hidden for half a second
    event('fusion.1', 5, 6),
    event('broadcast', 6, 6.5, program=2),
    event('fusion.1', 12, 13),  # after the window
]
COPY, WAIT, SAVE = (5.5, 7), (6.8, 8), (8, 9)


def trace_of(events, copies=()):
    spans = {WINDOW: [(0, 10)], 'host_to_device': [COPY], 'data_wait': [WAIT], 'checkpoint': [SAVE]}
    return Trace(events, list(copies), {name: [] for name in SPANS} | spans)


def seconds(rows):
    return {name: 2 * (row['forward'] + row['backward']) for name, row in rows.items()}


def test_every_instant_counts_once():
    found = breakdown.analyse(trace_of(EVENTS), [op_scopes.scopes(PROGRAM)], (5, 6))
    assert found.step_seconds == 5
    expected = {
        'text': 1.5,
        'audio': 2.5,  # the first second is the loop's own
        'optimizer': 1,
        'other programs': 0.5,
        'collectives': 1,
        'host to device': 0.5,
        'checkpoint': 1,
        'data wait': 1,
        'idle': 1,
    }
    assert seconds(found.rows) == pytest.approx(expected)
    assert found.rows['text'] == pytest.approx({'forward': 0, 'backward': 0.75})
    assert list(found.rows)[:2] == ['audio', 'text']
    assert list(found.rows)[-1] == 'idle'
    assert seconds(found.parts) == pytest.approx(
        {
            'audio (own)': 1,
            'audio/mlp': 1.5,
            'text/mlp': 1.5,
            'optimizer (own)': 1,
            'other programs': 0.5,
        }
    )
    assert (found.collectives, found.copies) == (0.75, 0.75)
    slowest = {one['name']: (one['seconds'], one['runs']) for one in found.operations}
    assert slowest['dot.2'] == (0.75, 0.5)
    page = breakdown.page(found)
    assert 'Steps 5 to 6 on 1 device(s) of this host: 5000.00 ms a step.' in page
    assert 'all                                5000.00  100.0%' in page
    assert '  text/mlp/dot, backward\n' in page
    assert len(page.splitlines()) < 60


def test_rows_are_the_mean_of_devices_and_copies_are_of_one():
    events = [event('dot.1', 0, 10), event('dot.2', 0, 4, device='gpu 1')]
    trace = trace_of(events, copies=[('gpu 1', 4, 5)])
    found = breakdown.analyse(trace, [op_scopes.scopes(PROGRAM)], (5, 6))
    assert found.devices == 2
    assert found.step_seconds == 5
    rows = {name: value for name, value in seconds(found.rows).items() if value}
    expected = {'audio': 5, 'text': 2, 'host to device': 1.25, 'data wait': 0.5}
    assert rows == pytest.approx(expected | {'checkpoint': 0.5, 'idle': 0.75})
    assert found.copies == pytest.approx((1.5 + 1 / 2) / 2)  # those of the host are for all


def test_a_trace_without_steps_or_operations_is_told():
    with pytest.raises(ValueError, match='no operations'):
        breakdown.analyse(trace_of([]), [op_scopes.scopes(PROGRAM)], (5, 6))
    with pytest.raises(ValueError, match='no span'):
        breakdown.analyse(Trace([], [], {WINDOW: []}), [], (5, 6))
