"""Jobs of several real processes on this machine, each with CPU devices of its own."""

import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
from xdist.scheduler import LoadFileScheduling

SECONDS = 300  # limit of a job


def pytest_xdist_make_scheduler(config, log):
    """A file's tests go to one worker: they share jobs that take a minute."""
    return LoadFileScheduling(config, log)


@dataclasses.dataclass
class Job:
    """Running processes, and where each one's output goes."""

    processes: list[subprocess.Popen]
    outputs: list[pathlib.Path]

    def output(self, process: int) -> str:
        return self.outputs[process].read_text(errors='replace')

    def wait(self) -> list[int]:
        """The exit codes; whoever is left after ``SECONDS`` is killed."""
        deadline = time.monotonic() + SECONDS
        try:
            return [p.wait(max(deadline - time.monotonic(), 1)) for p in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    def until(self, said: str, process: int, after: int = 0) -> str:
        """Waits until a process has said something from character ``after`` of its output on."""
        deadline = time.monotonic() + SECONDS
        while said not in self.output(process)[after:]:
            assert time.monotonic() < deadline, self.output(process)[-3000:]
            assert self.processes[process].poll() is None, self.output(process)[-3000:]
            time.sleep(0.05)
        return self.output(process)[after:]


class Jobs:
    """Starts jobs in one folder."""

    def __init__(self, folder: pathlib.Path, **environment: str):
        self.folder = folder
        self._environment = environment
        self._started: list[Job] = []

    def start(self, processes: int, devices: int, *command: object) -> Job:
        """``python command`` in each process; a job of one gets no flags."""
        with socket.socket() as free:
            free.bind(('localhost', 0))
            port = free.getsockname()[1]
        force = f'--xla_force_host_platform_device_count={devices}'
        # An environment of their own: the tests may themselves be a step of a cluster's job.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM_', 'OMPI_'))}
        environment = {
            **kept,
            'JAX_PLATFORMS': 'cpu',
            'XLA_FLAGS': f'{force} --xla_backend_optimization_level=0',
            'OMP_NUM_THREADS': '1',
            **self._environment,
        }
        job = Job([], [])
        number = len(self._started)
        for process in range(processes):
            place = [
                f'--coordinator_address=localhost:{port}',
                f'--num_processes={processes}',
                f'--process_id={process}',
            ]
            output = self.folder / f'output.{number}.{process}'
            arguments = [*map(str, command), *(place if processes > 1 else [])]
            with output.open('w') as file:
                started = subprocess.Popen(
                    [sys.executable, *arguments],
                    cwd=self.folder,
                    env=environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            job.processes.append(started)
            job.outputs.append(output)
        self._started.append(job)
        return job

    def run(self, processes: int, devices: int, *command: object) -> Job:
        """``start``, and all of them end well."""
        job = self.start(processes, devices, *command)
        assert job.wait() == [0] * processes, [job.output(p)[-3000:] for p in range(processes)]
        return job

    def kill(self) -> None:
        for job in self._started:
            for process in job.processes:
                process.kill()
                process.wait()


@pytest.fixture(scope='module')
def jobs(tmp_path_factory, packaged_tiny):
    """To start jobs with."""
    folder = tmp_path_factory.mktemp('jobs')
    started = Jobs(
        folder,
        ALM_JAX_DATA=str(packaged_tiny),
        JAX_COMPILATION_CACHE_DIR=str(folder / 'compiled'),  # of use to jobs of one process
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0.2',
    )
    yield started
    started.kill()
