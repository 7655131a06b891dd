"""The campaign of kills, short: one run, ended four times, is bit for bit the undisturbed one."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
# By SIGTERM in a step, while a manifest is written, at the hand-off to the second stage (then a
# checkpoint is damaged), and in a compilation.
SEED = 86


def test_a_few_kills(packaged_tiny):
    command = ('-m', 'tests.faults.campaign', '--kills=4', '--processes=1', f'--seed={SEED}')
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, 'ALM_JAX_DATA': str(packaged_tiny)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, others, last = done.stdout.splitlines()
    assert others.startswith('fall-backs 1 of 1 damaged checkpoints')
    assert others.endswith('orphans 0')
    pattern = r'runs 1, kills 4, resumes (\d), bit-identical 1, lost steps max \d, corrupted 0'
    found = re.fullmatch(pattern, last)
    assert found, last
    assert int(found[1]) >= 3
