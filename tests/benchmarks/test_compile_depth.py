"""What is compiled of a scanned stack does not grow with its depth; seconds are the benchmark's."""

import importlib.util
import pathlib

import pytest

FILE = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'compile_depth.py'


@pytest.mark.parametrize('remat', ['none', 'block'])
def test_twice_the_depth_is_as_many_instructions(remat):
    spec = importlib.util.spec_from_file_location(FILE.stem, FILE)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    (_, six), (_, twelve) = (benchmark.compiled(depth, remat, 64) for depth in (6, 12))
    assert six == twelve > 100
