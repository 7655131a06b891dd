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
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alm_jax.audio.decode import to_pcm16
from alm_jax.audio.resample import resample
from alm_jax.audio.windows import windows
from alm_jax.tasks import fixed_batches
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import whole_copy

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
        def float32(*inputs):
            return embed(*inputs).astype(jnp.float32)

        return fixed_batches.program(float32, self._mesh)

    def _in_batches(
        self, program: Callable[..., jax.Array], params: Any, extra: Any, items: Iterator
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(owner, embedding [d]) of every item (owner, array, array), in order."""
        params, extra = fixed_batches.whole((params, extra), self._mesh)
        rows = fixed_batches.rows_of(self._mesh, ROWS)
        return fixed_batches.results(program, params, extra, items, rows)


def _mean_direction(rows: Sequence[np.ndarray]) -> np.ndarray:
    mean = np.mean(np.stack(rows).astype(np.float64), axis=0)
    return (mean / max(np.linalg.norm(mean), 1e-12)).astype(np.float32)


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
