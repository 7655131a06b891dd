"""A trained run, or other people's model, ready for waveforms and text.

``model = alm_jax.load('runs/tiny')``. Reads the workdir alone: its config.json, its tokenizer and a
checkpoint. No config file is executed and no package that supplied weights is needed. What was
trained to agree embeds (``Model``), what was trained to answer writes (``AnsweringModel``).

``model = alm_jax.load('whisper-tiny')``. A Hugging Face folder, a CTranslate2 Whisper folder or a
.gguf file, see ``interop.from_pretrained``.
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
from alm_jax.decoding.generate import GREEDY
from alm_jax.decoding.sampling import Sampling
from alm_jax.interop import ctranslate2_folder, pretrained, tensor_files
from alm_jax.interop.family import Pretrained
from alm_jax.tasks import build_task
from alm_jax.text.dialogue import SLOT
from alm_jax.training import checkpoint, stages


@dataclasses.dataclass(frozen=True)
class Run:
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
    predictors: Any = dataclasses.field(repr=False)
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


@dataclasses.dataclass(frozen=True)
class Model(Run):
    """Two towers; ``predictors`` are ``tasks.predictors.Predictors``."""

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
        clips = _checked(waveform, sampling_rate)
        return self.predictors.embed_audio(self.params, self.extra, clips)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm embeddings: float32 [b, d]. Raises ConfigError for a text that is no string."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ConfigError(f'embed_text takes texts that are not empty; got {texts!r}.')
        return self.predictors.embed_text(self.params, self.extra, texts)


@dataclasses.dataclass(frozen=True)
class AnsweringModel(Run):
    """An encoder and a language model; ``predictors`` are ``tasks.generators.Generators``."""

    def generate(
        self,
        waveform: np.ndarray | Sequence[np.ndarray],
        prompt: str | Sequence[str] = '',
        *,
        sampling_rate: int,
        max_tokens: int = 64,
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
    ) -> list[str]:
        """Answers to prompts about clips, one a prompt. The same clip gives the same text.

        Args:
          waveform: one mono clip [n], a batch [b, n], or a list of clips [n_i]; float in [-1, 1] or
            int16. They go to the places for audio in the prompts, in order. Of a clip the first
            ``predictors.max_seconds`` are heard.
          prompt: several, or one, which is then asked again until the clips are used up. '<audio>'
            is a place for a clip; a prompt without one has it in front.
          sampling_rate: of all the clips, in Hz.
          max_tokens: of an answer.
          sampling: how tokens are chosen; by default the likeliest.
          stops: strings at which an answer ends.

        Raises:
          AudioError: see ``Model.embed_audio``, and a clip too short for one vector of audio.
          ConfigError: more clips than places for them, or fewer.
        """
        clips = _checked(waveform, sampling_rate)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        counts = [max(len(SLOT.findall(text)), 1) for text in prompts]
        if isinstance(prompt, str):
            prompts *= max(len(clips) // counts[0], 1)
            counts = counts * len(prompts)
        if sum(counts) != len(clips):
            raise ConfigError(
                f'{len(clips)} clips for {sum(counts)} places in {len(prompts)} prompts.'
            )
        waiting = iter(clips)
        rows = [
            ([next(waiting) for _ in range(count)], [(text, None)])
            for text, count in zip(prompts, counts)
        ]
        return self.predictors.generate(
            self.params, self.extra, rows, max_tokens=max_tokens, sampling=sampling, stops=stops
        )


def _checked(waveform: Any, rate: Any) -> list[tuple[np.ndarray, int]]:
    """(clip, rate) of each clip that users give. Raises AudioError."""
    low, high = decode.RATES
    if isinstance(rate, bool) or int(rate) != rate or not low <= rate <= high:
        raise AudioError(f'sampling_rate is {rate!r}; expected whole Hz, {low} to {high}.')
    return [(checked_clip(clip, name), int(rate)) for name, clip in _clips(waveform)]


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


def load(path: str | os.PathLike, step: int | None = None) -> Run | Pretrained:
    """Loads a run or a pretrained model.

    Args:
      path: a workdir, one checkpoint folder in it, a folder whose config.json has a model_type, a
        CTranslate2 Whisper folder, or a .gguf file.
      step: which checkpoint of a workdir; the newest complete one by default.

    Returns:
      Of a run a Model or an AnsweringModel, of others what ``interop.from_pretrained`` gives.

    Raises:
      ConfigError: none of these, with what was found and what lies beside it, or no such
        checkpoint; see also ``interop.from_pretrained``.
    """
    path = pathlib.Path(path).expanduser().absolute()
    source = _pretrained(path)
    if source is None:
        return load_run(path, step)
    if step is not None:
        raise ConfigError(f'{path} is a pretrained model, which has no steps; it is no run.')
    return pretrained.from_pretrained(source)


def load_towers(path: str | os.PathLike, step: int | None = None) -> Model:
    """``load_run``, and a ConfigError for a run that embeds nothing."""
    model = load_run(path, step)
    if not isinstance(model, Model):
        raise ConfigError(
            f'{path} answers in words and embeds nothing: use python -m alm_jax.caption, or a run '
            'of two towers.'
        )
    return model


def load_run(path: str | os.PathLike, step: int | None = None) -> Model | AnsweringModel:
    """``load`` for a workdir or checkpoint alone.

    Raises:
      ConfigError: no such run or checkpoint; the message lists the runs and steps there are.
    """
    workdir = _workdir(pathlib.Path(path).expanduser().absolute())
    file = workdir / 'config.json'
    config = config_lib.from_json(file.read_bytes(), str(file))
    config.text.tokenizer = str(workdir / 'tokenizer')
    folder = checkpoint.resolve(path, step)
    step = checkpoint.read_manifest(folder)['step']
    stage = stages.of(config)[stages.number_at(config, step)]
    params, extra = checkpoint.load_params(folder)
    predictors = build_task(stage.config).predictors
    kind = AnsweringModel if hasattr(predictors, 'generate') else Model
    return kind(
        config=config,
        workdir=workdir,
        step=step,
        checkpoint_sha256=checkpoint.checkpoint_sha256(params),
        predictors=predictors,
        params=params,
        extra=extra,
    )


def complete_steps(workdir: str | os.PathLike) -> list[int]:
    """The steps of a run's complete checkpoints, rising."""
    found = pathlib.Path(workdir).glob(f'checkpoints/*/{checkpoint.MANIFEST}')
    return sorted(int(manifest.parent.name) for manifest in found)


def _pretrained(path: pathlib.Path) -> pathlib.Path | None:
    """What ``from_pretrained`` reads, when ``path`` is that; a CTranslate2 folder is converted."""
    if path.suffix == '.gguf' and path.is_file():
        return path
    if not (path / 'config.json').is_file():
        return None
    if 'model_type' in tensor_files.read_config(path):
        return path
    if (path / 'model.bin').is_file():
        return ctranslate2_folder.cached(path)
    return None


def _workdir(path: pathlib.Path) -> pathlib.Path:
    """The workdir that ``path`` is or belongs to."""
    workdir = path.parent.parent if (path / checkpoint.MANIFEST).is_file() else path
    if not workdir.is_dir() or not (workdir / 'config.json').is_file():
        raise ConfigError(f'{path} {_found(path)}. {_beside(workdir)}')
    config = tensor_files.read_config(workdir)
    if 'model_type' in config:
        raise ConfigError(f'{path} is a pretrained model ({config["model_type"]}), not a run.')
    if 'model' not in config or 'front_end' not in config:
        keys = ', '.join(sorted(config)[:8]) or 'nothing'
        raise ConfigError(
            f'{workdir / "config.json"} is neither of a run nor of a model: it has no model_type, '
            f'only {keys}. {_beside(workdir)}'
        )
    return workdir


def _found(path: pathlib.Path) -> str:
    """What is at a path that is no run and no model."""
    if not path.exists():
        return 'does not exist'
    if path.is_file():
        hints = {
            '.safetensors': ': give its folder, with a config.json',
            '.bin': ': a pickle is never read here, see python -m alm_jax.interop.from_torch',
        }
        hints |= dict.fromkeys(('.pt', '.pth', '.ckpt'), hints['.bin'])
        return f'is a file, not a folder or a .gguf{hints.get(path.suffix, "")}'
    if (path / 'saved_model.pb').is_file():
        return 'is a SavedModel: use python -m alm_jax.interop convert first'
    names = sorted(entry.name for entry in path.iterdir())
    listed = ', '.join(names[:6]) + ', ...' * (len(names) > 6) if names else 'nothing'
    return f'is neither a run nor a model: it has no config.json (it has {listed})'


def _beside(path: pathlib.Path) -> str:
    """The runs and models that lie where ``path`` should."""
    beside = path.parent
    names = {p.parent.name for p in beside.glob('*/config.json')}
    names |= {p.name for p in beside.glob('*.gguf')}
    if not names - {path.name}:
        return f'There are no runs and no models in {beside}.'
    listed = sorted(names)
    return f'{did_you_mean(path.name, listed)} Runs and models in {beside}: {", ".join(listed)}.'


class _CallableModule(types.ModuleType):
    """Python binds a submodule over its package's function of that name; either may be called."""

    def __call__(self, path: str | os.PathLike, step: int | None = None) -> Run | Pretrained:
        return load(path, step)


sys.modules[__name__].__class__ = _CallableModule
