"""A trained run as a model: waveforms and text in, embeddings out.

``model = alm_jax.load('runs/tiny')``. Reads the workdir alone: its config.json, its tokenizer and a
checkpoint. No config file is executed and no package that supplied weights is needed.
"""

import dataclasses
import os
import pathlib
import sys
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.tasks import build_task
from alm_jax.tasks.predictors import Predictors
from alm_jax.training import checkpoint


@dataclasses.dataclass(frozen=True)
class Model:
    """A checkpoint with what it takes to use it; made by ``load``.

    Attributes:
      workdir: of the run.
      step: of the checkpoint.
      checkpoint_sha256: hash of the logical parameters.
      config: of the run.
      predictors: the compiled functions over ``params`` and ``extra``.
    """

    workdir: pathlib.Path
    step: int
    checkpoint_sha256: str
    config: ConfigDict = dataclasses.field(repr=False)
    predictors: Predictors = dataclasses.field(repr=False)
    params: Any = dataclasses.field(repr=False)
    extra: Any = dataclasses.field(repr=False)

    @property
    def sampling_rate(self) -> int:
        """The encoder's rate in Hz; waveforms of another rate are resampled to it."""
        return self.predictors.sampling_rate

    @property
    def front_end_sha256(self) -> str:
        """The hash of the audio front end."""
        return self.predictors.front_end_sha256

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by before a softmax; learned, at most 100."""
        return min(float(np.exp(self.params['logit_scale'])), 100.0)

    def embed_audio(
        self, waveform: np.ndarray | Sequence[np.ndarray], *, sampling_rate: int
    ) -> np.ndarray:
        """Unit-norm embeddings of whole clips: float32 [b, d]. The same clip gives the same bits.

        A clip longer than the encoder's window is cut as ``alm_jax.audio.windows`` says.

        Args:
          waveform: one mono clip [n], a batch [b, n], or a list of clips [n_i]; float in [-1, 1] or
            int16.
          sampling_rate: of all the clips, in Hz.

        Raises:
          AudioError: empty, NaN, out of range, another dtype or shape, or an absurd rate.
        """
        low, high = decode.RATES
        rate = sampling_rate
        if isinstance(rate, bool) or int(rate) != rate or not low <= rate <= high:
            raise AudioError(f'sampling_rate is {rate!r}; expected whole Hz, {low} to {high}.')
        clips = [checked_clip(clip, name) for name, clip in _clips(waveform)]
        return self.predictors.embed_audio(
            self.params, self.extra, [(clip, int(rate)) for clip in clips]
        )

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm embeddings: float32 [b, d]. Raises ConfigError for a text that is no string."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ConfigError(f'embed_text takes texts that are not empty; got {texts!r}.')
        return self.predictors.embed_text(self.params, self.extra, texts)


def _clips(waveform: Any) -> list[tuple[str, np.ndarray]]:
    """Named clips [n] of whatever ``Model.embed_audio`` takes."""
    if isinstance(waveform, Sequence) and len(waveform) and np.ndim(waveform[0]) == 1:
        clips = [np.asarray(clip) for clip in waveform]
    else:
        array = np.asarray(waveform)
        if array.ndim not in (1, 2):
            raise AudioError(f'waveform has shape {array.shape}; expected [n], [b, n] or a list.')
        clips = list(np.atleast_2d(array))
        if not clips:
            raise AudioError('waveform holds no clip.')
    return [(f'clip {i}' if len(clips) > 1 else 'waveform', clip) for i, clip in enumerate(clips)]


def checked_clip(clip: np.ndarray, name: str) -> np.ndarray:
    """``clip`` [n] as int16 or as float32 in [-1, 1]. Raises AudioError naming the clip."""
    if clip.ndim != 1 or not len(clip):
        raise AudioError(f'{name} has shape {clip.shape}; expected [n] with n at least 1.')
    if clip.dtype == np.int16:
        return clip
    if not np.issubdtype(clip.dtype, np.floating):
        raise AudioError(f'{name} is {clip.dtype}; expected int16, or float in [-1, 1].')
    if not np.isfinite(clip).all():
        raise AudioError(f'{name} has NaN or infinite samples.')
    peak = float(np.abs(clip).max())
    if peak > 16.0:  # as decode does: lossy decoders exceed 1 a little, integer scales by far
        raise AudioError(f'{name} has samples up to {peak:.0f}; float audio must lie in [-1, 1].')
    return np.clip(clip, -1.0, 1.0).astype(np.float32)


def load(path: str | os.PathLike, step: int | None = None) -> Model:
    """Loads a run.

    Args:
      path: a workdir, or one checkpoint folder in it.
      step: which checkpoint of a workdir; the newest complete one by default.

    Raises:
      ConfigError: no such run or checkpoint; the message lists the runs and steps there are.
    """
    workdir = _workdir(pathlib.Path(path).expanduser().absolute())
    config = config_lib.from_json((workdir / 'config.json').read_text())
    config.text.tokenizer = str(workdir / 'tokenizer')
    folder = checkpoint.resolve(path, step)
    params, extra = checkpoint.load_params(folder)
    return Model(
        config=config,
        workdir=workdir,
        step=checkpoint.read_manifest(folder)['step'],
        checkpoint_sha256=checkpoint.checkpoint_sha256(params),
        predictors=build_task(config).predictors,
        params=params,
        extra=extra,
    )


def complete_steps(workdir: str | os.PathLike) -> list[int]:
    """The steps of a run's complete checkpoints, rising."""
    found = pathlib.Path(workdir).glob(f'checkpoints/*/{checkpoint.MANIFEST}')
    return sorted(int(manifest.parent.name) for manifest in found)


def _workdir(path: pathlib.Path) -> pathlib.Path:
    """The workdir that ``path`` is or belongs to."""
    workdir = path.parent.parent if (path / checkpoint.MANIFEST).is_file() else path
    if (workdir / 'config.json').is_file():
        return workdir
    runs = sorted(
        str(found.parent.relative_to(workdir.parent))
        for found in workdir.parent.glob('*/config.json')
        if (found.parent / 'checkpoints').is_dir()
    )
    problem = 'is no run: it has no config.json' if workdir.exists() else 'does not exist'
    if not runs:
        raise ConfigError(f'{workdir} {problem}, and there are no runs in {workdir.parent}.')
    hint = did_you_mean(workdir.name, runs)
    listed = ', '.join(runs)
    raise ConfigError(f'{workdir} {problem}. {hint} Runs in {workdir.parent}: {listed}.')


class _CallableModule(types.ModuleType):
    """Python binds a submodule over its package's function of that name; either may be called."""

    def __call__(self, path: str | os.PathLike, step: int | None = None) -> Model:
        return load(path, step)


sys.modules[__name__].__class__ = _CallableModule
