"""How fast a run trains: what a step does and costs, over the time that it takes."""

import concurrent.futures
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from alm_jax.training import goodput, padding, watchdog
from alm_jax.training.perf import hardware
from alm_jax.training.perf import model_flops as flops_lib
from alm_jax.training.step import shapes

# What of the metrics tells of the clock, so that no two runs have the same.
TIMED = (
    *('clips_per_s', 'tokens_per_s', 'model_tflops_per_s', 'mfu', 'step_seconds', 'data_wait'),
    *('goodput', 'start_up_seconds', 'compile_seconds'),
)


class StepClock:
    """Rates of the steps between two calls of ``rates``.

    ``waiting`` surrounds the call for the next batch; ``stepped`` takes what the step then gave;
    ``excluded`` surrounds what is not training (an evaluation). Steps run asynchronously, so the
    host may well wait for data while the device is busy: only the time from when the last step
    has finished counts as waiting. What is inside them is named in profiles, and by the watchdog.
    """

    def __init__(
        self,
        clips_per_step: int,
        usage: goodput.Goodput,
        watch: watchdog.Watchdog | None = None,
        *,
        model_flops: Mapping[Any, float] | None = None,
        peak_flops: float | None = None,
    ):
        """
        Args:
          clips_per_step: rows of the global batch.
          usage: is told where the seconds go.
          watch: is told of every phase and step.
          model_flops: of a step, over the global batch, by ``step.shapes`` of the batch; None
            is not known.
          peak_flops: a second, of all devices together; None where it is not known.
        """
        self._clips_per_step, self._usage = clips_per_step, usage
        self._watch = watch or watchdog.Watchdog(0)
        self._flops_of, self._peak = model_flops or {}, peak_flops
        self._watcher = concurrent.futures.ThreadPoolExecutor(1, 'step_clock')
        self._finished: concurrent.futures.Future | None = None  # when the last step did
        self._restart()

    def _restart(self) -> None:
        self._start, self._steps, self._waited, self._excluded = time.perf_counter(), 0, 0.0, 0.0
        self._flops = 0.0
        self._padding: list[tuple[dict[str, int], dict[str, jax.Array]]] = []

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts one step, and the time inside as waiting for data."""
        start = time.perf_counter()
        with self._watch.phase('data wait'), jax.profiler.TraceAnnotation(goodput.DATA_WAIT):
            yield
        end = time.perf_counter()
        if self._finished is not None:
            start = max(start, self._finished.result()) if self._finished.done() else end
        self._waited += max(end - start, 0.0)
        self._steps += 1

    def stepped(self, metrics: Mapping[str, jax.Array], batch: Mapping[str, Any]) -> None:
        """Takes the metrics of the step just dispatched, and its batch; does not wait for them."""
        self._finished = self._watcher.submit(_time_when_ready, metrics)
        sizes = padding.sizes(batch)
        self._padding.append((sizes, {name: metrics[name] for name in sizes if name in metrics}))
        self._flops += self._flops_of.get(shapes(batch), 0.0)
        self._watch.stepped()

    @contextlib.contextmanager
    def excluded(self, name: str) -> Iterator[None]:
        """Leaves the time inside out of the rates and books it under ``name``.

        The step that runs is waited for first: its time is its own.
        """
        if self._finished is not None:
            self._finished.result()
        start = time.perf_counter()
        with (
            self._watch.phase(name),
            self._usage.phase(name),
            jax.profiler.TraceAnnotation(name),
        ):
            yield
        self._excluded += time.perf_counter() - start

    def rates(self) -> dict[str, float]:
        """Of the steps since the last call. Call it in sync, when their metrics are there.

        Returns:
          'clips_per_s'; 'step_seconds', the mean, with waiting for data; 'data_wait', the share of
          it (0 to 1); 'padding_audio' and 'padding_text', see ``padding.shares``; 'tokens_per_s',
          without padding; 'model_tflops_per_s', what the mathematics of the model needs, see
          ``perf.model_flops``, on all devices together; 'mfu', the share that this is of the bf16
          peak of the devices (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B);
          and 'goodput', see ``goodput``. Those that are not known are absent: there is no MFU on a
          CPU, or any other device that ``perf.hardware`` does not list.
        """
        seconds = max(time.perf_counter() - self._start - self._excluded, 1e-9)
        waited = min(self._waited, seconds)
        rates = {
            'clips_per_s': self._steps * self._clips_per_step / seconds,
            'step_seconds': seconds / max(self._steps, 1),
            'data_wait': waited / seconds,
        }
        held, padded = _padded(self._padding)
        rates |= {name: padded[name] / held[name] for name in held}
        if 'padding_text' in held:
            rates['tokens_per_s'] = (held['padding_text'] - padded['padding_text']) / seconds
        if self._flops:
            rates['model_tflops_per_s'] = self._flops / seconds / 1e12
            if self._peak is not None:
                rates['mfu'] = self._flops / seconds / self._peak
        self._usage.book(goodput.DATA_WAIT, waited)
        self._usage.book(goodput.STEPS, seconds - waited, self._steps)
        self._usage.write()
        rates['goodput'] = self._usage.share
        self._restart()
        return rates


def model_flops(
    task: Any, optimizer: Any, state: Any, specs: Sequence[Mapping[str, Any]]
) -> dict[Any, float]:
    """Of a step, by ``step.shapes`` of its batch.

    Args:
      task, optimizer, state: see ``perf.model_flops.of_step``; the state as shapes.
      specs: for each kind of batch, its arrays' global shapes and dtypes by name.
    """
    found = {}
    for spec in specs:
        batch = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in spec.items()}
        found[shapes(spec)] = flops_lib.of_step(task, optimizer, state, batch).model
    return found


def peak_flops(devices: Sequence[Any]) -> float | None:
    """A second, dense bf16, of all ``devices`` together; None where they are not known."""
    chip = hardware.chip_of(devices[0].device_kind)
    return None if chip is None else len(devices) * chip.peak_flops


def _padded(steps: list) -> tuple[dict[str, float], dict[str, float]]:
    """Samples and tokens of the batches of ``steps``, and how many of them are padding."""
    held: dict[str, float] = {}
    padded: dict[str, float] = {}
    for sizes, shares in jax.device_get(steps):
        for name, share in shares.items():
            held[name] = held.get(name, 0.0) + sizes[name]
            padded[name] = padded.get(name, 0.0) + sizes[name] * float(np.asarray(share))
    return held, padded


def _time_when_ready(metrics: Any) -> float:
    jax.block_until_ready(metrics)
    return time.perf_counter()
