"""Traces as the profilers of TPUs and GPUs write them; a CPU's are in the tests of a real run."""

import os

import pytest
from jax.profiler import ProfileData

from alm_jax.training.perf import trace


def plane(name, names, lines, stats=()):
    """Text of a plane: events are (line, name, start, duration in us, {stat: value})."""
    numbers = {event: number for number, event in enumerate(names, start=1)}
    text = [f'planes {{ name: "{name}"']
    for line, events in lines.items():
        text.append(f'lines {{ name: "{line}" timestamp_ns: 0')
        for event, start, duration, values in events:
            picoseconds = f'offset_ps: {start}000000 duration_ps: {duration}000000'
            text.append(f'events {{ metadata_id: {numbers[event]} {picoseconds}')
            for stat, value in values.items():
                kind = (
                    f'str_value: "{value}"' if isinstance(value, str) else f'int64_value: {value}'
                )
                text.append(f'stats {{ metadata_id: {1 + stats.index(stat)} {kind} }}')
            text.append('}')
        text.append('}')
    tables = (('event', list(numbers)), ('stat', stats))
    for kind, entries in tables:
        for number, entry in enumerate(entries, start=1):
            value = f'value {{ id: {number} name: "{entry}" }}'
            text.append(f'{kind}_metadata {{ key: {number} {value} }}')
    return ' '.join([*text, '}'])


def read(path, *planes):
    path.write_bytes(ProfileData.text_proto_to_serialized_xspace(' '.join(planes)))
    return trace.read(path, ['data_wait'])


HOST = plane(
    '/host:CPU', ['data_wait', 'noise'], {'7': [('data_wait', 2, 3, {}), ('noise', 1, 9, {})]}
)


def test_a_tpu_names_operations_by_their_text_and_sums_them_up_on_other_lines(tmp_path):
    fusion, loop = '%fusion.3 = bf16[8]{0} fusion(%p)', '%while.1 = (s32[]) while(%t)'
    lines = {
        'XLA Modules': [('jit_train_step(1)', 0, 100, {})],
        'XLA Ops': [(loop, 10, 50, {'program_id': 4}), (fusion, 20, 5, {'program_id': 4})],
        'Async XLA Ops': [(fusion, 20, 90, {})],
    }
    names = ['jit_train_step(1)', fusion, loop]
    tpu = plane('/device:TPU:1', names, lines, ['program_id'])
    core = plane('/device:TPU:1 SparseCore 0', names, lines, ['program_id'])
    found = read(tmp_path / 'x.xplane.pb', HOST, tpu, core)
    events = {(e.name, e.device, e.program): (e.start, e.end) for e in found.events}
    assert events == {
        ('while.1', '/device:TPU:1', 4): pytest.approx((10e-6, 60e-6)),
        ('fusion.3', '/device:TPU:1', 4): pytest.approx((20e-6, 25e-6)),
    }
    assert found.spans == {'data_wait': [pytest.approx((2e-6, 5e-6))]}


def test_a_gpu_names_kernels_and_tells_their_operation_and_copies_beside_them(tmp_path):
    stats = {'hlo_op': 'gemm_fusion.2', 'hlo_module': 'jit_train_step', 'program_id': 9}
    lines = {
        'Stream #13(Compute)': [('ampere_gemm', 10, 5, stats)],
        'Stream #14(MemcpyH2D)': [('MemcpyH2D', 1, 2, {})],
        'XLA Ops': [('gemm_fusion.2', 10, 5, {})],
    }
    names = ['ampere_gemm', 'MemcpyH2D', 'gemm_fusion.2']
    gpu = plane('/device:GPU:0', names, lines, list(stats))
    found = read(tmp_path / 'x.xplane.pb', HOST, gpu)
    assert [(e.name, e.program) for e in found.events] == [('gemm_fusion.2', 9)]
    assert found.copies == [('/device:GPU:0', pytest.approx(1e-6), pytest.approx(3e-6))]


def test_the_newest_trace_of_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='xplane'):
        trace.newest(tmp_path)
    for written, name in enumerate(('2026_01_01', '2025_01_01')):
        folder = tmp_path / 'plugins/profile' / name
        folder.mkdir(parents=True)
        (folder / 'host.xplane.pb').touch()
        os.utime(folder / 'host.xplane.pb', (written, written))
    assert trace.newest(tmp_path).parent.name == '2025_01_01'
