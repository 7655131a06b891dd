"""Embeddings of whole clips and texts, the same bits every time.

Every call of the device runs one compiled program over a fixed number of rows a device, the last
batch padded, and a row's result depends on that row alone. So a clip's embedding depends neither on
what else is in the list nor on the number of devices. A process embeds what it is given on its own
devices; only to gather parameters that are split over processes do all of them have to call.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from alm_jax.audio.decode import to_pcm16
from alm_jax.audio.resample import resample
from alm_jax.audio.windows import windows
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import sharding, whole_copy

ROWS = 32  # of a batch, on each device


@dataclasses.dataclass(frozen=True)
class Predictors:
    """What a contrastive model can do with a clip or a text.

    Attributes:
      embed_windows: (params, extra, pcm int16 [b, n], num_samples int32 [b]) -> [b, d], jittable.
      embed_tokens: (params, extra, token_ids int32 [b, t], token_mask bool [b, t]) -> [b, d].
      tokenizer: of the text tower.
      sampling_rate: Hz; clips of other rates are resampled.
      window_samples: samples of an evaluation window.
      front_end_sha256: names the log-mel constants, the window and the policy for long clips.
      mesh: whose devices share the rows, those of this process alone; None is one device.
    """

    embed_windows: Callable[..., jax.Array]
    embed_tokens: Callable[..., jax.Array]
    tokenizer: Tokenizer
    sampling_rate: int
    window_samples: int
    front_end_sha256: str
    mesh: Mesh | None = None

    @property
    def text_sha256(self) -> str:
        """The hash of the tokenizer's file."""
        return self.tokenizer.sha256

    def embed_audio(
        self, params: Any, extra: Any, clips: Iterable[tuple[np.ndarray, int]]
    ) -> np.ndarray:
        """Embeds clips of any length and rate.

        A clip is resampled on the host and cut as ``alm_jax.audio.windows`` says; the unit-norm
        embeddings of its windows are averaged in float64 and the mean is divided by its norm. Clips
        are read as they are needed, so memory does not grow with their number.

        Args:
          params, extra: of the model.
          clips: (mono waveform [n], int16 or float32 in [-1, 1], rate in Hz).

        Returns:
          float32 [clips, d], unit norm; [0, 0] for no clips.
        """
        items = (
            (clip, *window)
            for clip, (waveform, rate) in enumerate(clips)
            for window in zip(*self._windows(waveform, rate))
        )
        embedded = self._in_batches(self._window_program, params, extra, items)
        by_clip = itertools.groupby(embedded, key=lambda item: item[0])
        return _stacked([_mean_direction([row for _, row in group]) for _, group in by_clip])

    def embed_text(self, params: Any, extra: Any, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts, each at the smallest token length that holds it.

        Returns:
          float32 [texts, d], unit norm; [0, 0] for no texts.
        """
        by_length: dict[int, list] = {}
        for index, text in enumerate(texts):
            tokens = self.tokenizer([text])
            item = (index, tokens['token_ids'][0], tokens['token_mask'][0])
            by_length.setdefault(len(item[1]), []).append(item)
        rows: list[Any] = [None] * len(texts)
        for items in by_length.values():
            for index, row in self._in_batches(self._token_program, params, extra, iter(items)):
                rows[index] = row
        return _stacked(rows)

    def _windows(self, waveform: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
        resampled = resample(waveform, rate, self.sampling_rate)
        if resampled.dtype != np.int16:
            resampled = to_pcm16(resampled)  # as in training, PCM crosses to the device
        return windows(resampled, self.window_samples)

    @functools.cached_property
    def _mesh(self) -> Mesh | None:
        return self.mesh and whole_copy.local_mesh(self.mesh)

    @functools.cached_property
    def _window_program(self) -> Callable[..., jax.Array]:
        return self._program(self.embed_windows)

    @functools.cached_property
    def _token_program(self) -> Callable[..., jax.Array]:
        return self._program(self.embed_tokens)

    def _program(self, embed: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """``embed``, each device on its own ``ROWS`` rows."""
        if self._mesh is None:
            return jax.jit(embed)
        whole, rows = PartitionSpec(), PartitionSpec(sharding.batch_axes(self._mesh))
        return jax.jit(
            jax.shard_map(
                embed,
                mesh=self._mesh,
                in_specs=(whole, whole, rows, rows),
                out_specs=rows,
                check_vma=False,  # which attention kernels do not pass
            )
        )

    def _in_batches(
        self, program: Callable[..., jax.Array], params: Any, extra: Any, items: Iterator
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(owner, embedding [d]) of every item (owner, array, array), in order."""
        if self._mesh is None:
            params, extra = jax.device_put((params, extra))  # once, not with every batch
        else:
            params, extra = whole_copy.on_devices((params, extra), self._mesh)
        rows = ROWS * (sharding.batch_devices(self._mesh) if self._mesh else 1)
        while batch := list(itertools.islice(items, rows)):
            owners, *columns = zip(*batch)
            arrays = [_padded(np.stack(column), rows) for column in columns]
            embedded = np.asarray(program(params, extra, *arrays), np.float32)
            yield from zip(owners, embedded)


def _padded(array: np.ndarray, rows: int) -> np.ndarray:
    """``array`` with its first row repeated at the end: a row of zeros could divide by zero."""
    return np.concatenate([array, np.repeat(array[:1], rows - len(array), axis=0)])


def _mean_direction(rows: Sequence[np.ndarray]) -> np.ndarray:
    mean = np.mean(np.stack(rows).astype(np.float64), axis=0)
    return (mean / max(np.linalg.norm(mean), 1e-12)).astype(np.float32)


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
