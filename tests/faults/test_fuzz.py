"""Some hundred of the fuzz program's cases, and that it sees what goes wrong."""

import collections
import random
import sys

import pytest

from tests.faults import fuzz, fuzz_corpus

KINDS = list(fuzz_corpus.KINDS)
# What the gguf cases of a process meet instead of a reader, in the order of their numbers.
WRONG = """
import ctypes, sys, time
import numpy as np
from tests.faults import fuzz, fuzz_targets
fuzz.SECONDS, fuzz.MEMORY = 4.0, 64 << 20
kept = []
what = [
    lambda: ctypes.string_at(0),
    lambda: time.sleep(600),
    lambda: np.empty(1 << 40, np.uint8),
    lambda: kept.append(np.ones(80 << 20, np.uint8)),
    lambda: {}['a'],
    lambda: None,
]
begin = int(sys.argv[sys.argv.index('--run') + 1])
left = iter(what[begin:])
fuzz_targets._READERS['gguf'] = lambda rng, path: next(left)()
sys.exit(fuzz.main())
"""


@pytest.fixture(scope='module')
def cases(packaged_tiny):
    return fuzz.Cases(KINDS, seed=0)


def test_whole_files_are_read(cases):
    """Else mutations would test nothing but the first check."""
    for kind in KINDS:
        for name, content in fuzz_corpus.corpus(kind).items():
            cases.read(kind, name, content, random.Random(0))


def test_a_case_is_a_function_of_its_number(cases):
    again = fuzz.Cases(KINDS, seed=0)
    other = fuzz.Cases(KINDS, seed=1)
    differ = 0
    for number in range(60):
        assert cases.input(number)[:3] == again.input(number)[:3]
        differ += cases.input(number)[2] != other.input(number)[2]
    assert differ > 50


def test_damaged_files_end_in_a_result_or_a_named_error(packaged_tiny):
    outcomes = fuzz.campaign(KINDS, seed=2024, cases=240, bar=False)
    said = fuzz.report(outcomes, '--seed 2024', 0.0)
    assert [outcome.number for outcome in outcomes] == list(range(240))
    assert not any(outcome.failed for outcome in outcomes), said
    kinds = collections.Counter((outcome.kind, outcome.what == 'clean') for outcome in outcomes)
    for kind in KINDS:
        assert kinds[kind, True] + kinds[kind, False] == 40
        assert kinds[kind, False] > 10, said
    assert 'FAILED' not in said


def test_what_goes_wrong_is_counted_and_told(monkeypatch, packaged_tiny):
    monkeypatch.setattr(fuzz, 'PROGRAM', (sys.executable, '-c', WRONG))
    outcomes = fuzz.campaign(['gguf'], seed=0, cases=6, bar=False)
    crash, hang, claim, growth, defect, clean = outcomes
    assert 'ended its process with -11' in crash.what
    assert 'ended its process with 1' in hang.what
    assert 'most recent call first' in hang.what
    assert 'MemoryError' in claim.what
    assert growth.what == 'took 80 MiB'
    assert defect.what == "KeyError: 'a'"
    assert [outcome.failed for outcome in outcomes] == [True] * 5 + [False]
    assert clean.what == 'clean'
    said = fuzz.report(outcomes, '--seed 0 --kinds gguf', 0.0)
    assert said.splitlines()[1].split() == ['gguf', '6', '1', '0', '5']
    assert 'python -m tests.faults.fuzz --seed 0 --kinds gguf --only 4' in said
