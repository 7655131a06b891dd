"""launch/slurm.sbatch on a real Slurm of one node, with two CPU tasks."""

import contextlib
import json
import pathlib
import re
import subprocess
import time

import pytest

SCRIPT = pathlib.Path(__file__).with_name('slurm.sh')
DAEMONS = ('munged', 'slurmctld', 'slurmd', 'slurmstepd')


def test_a_job_that_is_signalled_saves_is_requeued_and_finishes(tmp_path):
    begun = time.time()
    done = subprocess.run([SCRIPT, tmp_path], capture_output=True, text=True, timeout=900)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    told = (tmp_path / 'job.txt').read_text()
    log = (tmp_path / 'job.log').read_text()
    assert 'JobState=COMPLETED' in told, log
    assert 'Restarts=1 ' in told

    # Two processes of one job, found through Slurm, twice; the second start appends to the log.
    assert log.count('0: 2 cpu device(s)') == 2
    starts = re.findall(r'slurm\.sbatch: .* start (\d) of job', log)
    assert starts == ['1', '2']
    assert 'signalled; the tasks are asked to end' in log
    (saved,) = re.findall(r'Ended by SIGTERM. The same command goes on from step (\d+)\.', log)
    assert re.findall(r'state: (.*)', log) == ['scratch', f'{tmp_path}/run/checkpoints/{saved}']

    written = (tmp_path / 'run' / 'metrics.jsonl').read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    steps = [line['step'] for line in lines if 'train/loss' in line]
    assert steps == list(range(1, 61))  # each once: nothing was lost and nothing done again
    assert (tmp_path / 'run' / 'checkpoints' / '60' / 'manifest.json').exists()

    assert not running_since(begun)


def running_since(begun: float) -> list[str]:
    """Daemons of Slurm started after ``begun`` that have not ended."""
    found = []
    for process in pathlib.Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):  # it ended meanwhile
            name = (process / 'comm').read_text().strip()
            zombie = (process / 'stat').read_text().rpartition(')')[2].split()[0] == 'Z'
            if name in DAEMONS and not zombie and process.stat().st_ctime > begun:
                found.append(name)
    return found
