"""What a run says while it goes: metrics.jsonl, TensorBoard files and a progress bar."""

import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import tensorboardX
import tqdm


class MetricsWriter:
    """Appends to ``<workdir>/metrics.jsonl`` and ``<workdir>/tensorboard/``.

    Only the first process writes. On a restart, lines of steps after the restored one are dropped,
    so that a curve has no step twice.

    Attributes:
      stage: what each line says under 'stage'; '' is nothing.
    """

    def __init__(self, workdir: str | os.PathLike, *, restored_step: int = 0):
        self.stage = ''
        self._workdir = pathlib.Path(workdir)
        self._file = self._board = None
        self.go_back(restored_step)

    def go_back(self, step: int) -> None:
        """The run goes on from ``step``: what came after it is dropped."""
        self.close()
        if jax.process_index():
            return
        self._workdir.mkdir(parents=True, exist_ok=True)
        path = self._workdir / 'metrics.jsonl'
        truncate_after(path, step)
        self._file = path.open('a')
        self._board = tensorboardX.SummaryWriter(
            str(self._workdir / 'tensorboard'), purge_step=step + 1
        )

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """One line ``{"step": step, **scalars}``; a value that is not finite becomes null."""
        if self._file is None:
            return
        values = {name: float(value) for name, value in scalars.items()}
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        of = {'step': int(step)} | ({'stage': self.stage} if self.stage else {})
        self._file.write(json.dumps(of | finite) + '\n')
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
    """Puts loss, clips a second, data wait and, where it is known, MFU beside the bar."""
    text = (
        f'loss {scalars["train/loss"]:.4f}, {scalars["train/clips_per_s"]:.0f} clips/s, '
        f'data wait {scalars["train/data_wait"]:.0%}'
    )
    if 'train/mfu' in scalars:
        text += f', MFU {scalars["train/mfu"]:.0%}'
    bar.set_postfix_str(text, refresh=False)
