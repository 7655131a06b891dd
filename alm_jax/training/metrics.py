"""What a run says while it goes: metrics.jsonl, TensorBoard files and a progress bar."""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tensorboardX
import tqdm


class MetricsWriter:
    """Appends to ``<workdir>/metrics.jsonl`` and ``<workdir>/tensorboard/``.

    Only the first process writes. On a restart, lines of steps after the restored one are dropped,
    so that a curve has no step twice.
    """

    def __init__(self, workdir: str | os.PathLike, *, restored_step: int = 0):
        self._file = self._board = None
        if jax.process_index():
            return
        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / 'metrics.jsonl'
        truncate_after(path, restored_step)
        self._file = path.open('a')
        self._board = tensorboardX.SummaryWriter(
            str(workdir / 'tensorboard'), purge_step=restored_step + 1
        )

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """One line ``{"step": step, **scalars}``; a value that is not finite becomes null."""
        if self._file is None:
            return
        values = {name: float(value) for name, value in scalars.items()}
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        self._file.write(json.dumps({'step': int(step), **finite}) + '\n')
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._file is not None:
            self._file.close()
            self._board.close()

    def __enter__(self) -> 'MetricsWriter':
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def truncate_after(path: pathlib.Path, step: int) -> None:
    """Drops the lines of a metrics.jsonl after ``step``, and a last line that was cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)['step'] <= step:
                kept.append(line + '\n')
        except (ValueError, KeyError):
            continue
    partial = path.with_suffix('.partial')
    partial.write_text(''.join(kept))
    partial.replace(path)


class StepClock:
    """Clips a second and the share of time spent waiting for data, between two calls of ``rates``.

    ``waiting`` surrounds the call for the next batch; ``stepped`` takes what the step then gave;
    ``excluded`` surrounds what is not training (an evaluation). Steps run asynchronously, so the
    host may well wait for data while the device is busy: only the time from when the last step
    has finished counts as waiting.
    """

    def __init__(self, clips_per_step: int):
        self._clips_per_step = clips_per_step
        self._watcher = concurrent.futures.ThreadPoolExecutor(1, 'step_clock')
        self._finished: concurrent.futures.Future | None = None  # when the last step did
        self._restart()

    def _restart(self) -> None:
        self._start, self._steps, self._waited, self._excluded = time.perf_counter(), 0, 0.0, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts one step, and the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        end = time.perf_counter()
        if self._finished is not None:
            start = max(start, self._finished.result()) if self._finished.done() else end
        self._waited += max(end - start, 0.0)
        self._steps += 1

    def stepped(self, metrics: Any) -> None:
        """Takes the metrics of the step just dispatched; does not wait for them."""
        self._finished = self._watcher.submit(_time_when_ready, metrics)

    @contextlib.contextmanager
    def excluded(self) -> Iterator[None]:
        """Leaves the time inside out of the rates."""
        start = time.perf_counter()
        yield
        self._excluded += time.perf_counter() - start

    def rates(self) -> dict[str, float]:
        """'clips_per_s' and 'data_wait' (share, 0 to 1) since the last call. Call it in sync."""
        seconds = max(time.perf_counter() - self._start - self._excluded, 1e-9)
        rates = {
            'clips_per_s': self._steps * self._clips_per_step / seconds,
            'data_wait': min(self._waited / seconds, 1.0),
        }
        self._restart()
        return rates


def _time_when_ready(metrics: Any) -> float:
    jax.block_until_ready(metrics)
    return time.perf_counter()


def to_host(metrics: Mapping[str, jax.Array], prefix: str = 'train/') -> dict[str, float]:
    """Step metrics as floats under ``prefix``; waits for the step."""
    return {
        prefix + name: float(np.asarray(value))
        for name, value in sorted(jax.device_get(dict(metrics)).items())
    }


def progress_bar(steps: int, start: int = 0) -> tqdm.tqdm:
    """A bar with the remaining time over ``steps``; ``show`` puts the numbers beside it.

    Silent on processes other than the first, and sparse where stderr is a file.
    """
    return tqdm.tqdm(
        total=steps,
        initial=start,
        unit='step',
        disable=jax.process_index() != 0,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
    )


def show(bar: tqdm.tqdm, scalars: Mapping[str, float]) -> None:
    """Puts loss, clips a second and data wait beside the bar."""
    bar.set_postfix_str(
        f'loss {scalars["train/loss"]:.4f}, {scalars["train/clips_per_s"]:.0f} clips/s, '
        f'data wait {scalars["train/data_wait"]:.0%}',
        refresh=False,
    )
