"""Models that write about what they hear, of whatever kind, behind one interface."""

import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from alm_jax.audio.resample import resample
from alm_jax.config import ConfigError
from alm_jax.decoding.generate import GREEDY
from alm_jax.decoding.sampling import Sampling
from alm_jax.interop import audio_lm_dialogue
from alm_jax.interop.audio_lm import AudioLm
from alm_jax.interop.family import Pretrained
from alm_jax.interop.msclap import ClapCapModel, PengiModel
from alm_jax.interop.whisper import SpeechToText
from alm_jax.load import AnsweringModel, Run, load
from alm_jax.text import dialogue
from alm_jax.text.dialogue import Turn
from alm_jax.training import checkpoint

Clip = tuple[np.ndarray, int]  # mono [n], int16 or float32 in [-1, 1]; Hz
Row = tuple[Sequence[Clip], Sequence[Turn]]

CAPTION_PROMPT = 'Describe what can be heard.'  # one of those that instructions are trained with


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A model that hears clips and writes.

    Attributes:
      name: of its folder, for messages.
      params: for the hash.
      max_seconds: of a clip; what follows is not heard.
      prompt: asks for a caption; None where the model takes no prompts.
      slots: matches what stands for a clip in a turn, see ``alm_jax.text.dialogue``; None where it
        hears one clip and takes one turn.
      write: (rows, max_tokens=, sampling=) -> a text for each row.
      stream: (row, max_tokens=, sampling=) -> the pieces of its text as they come.
    """

    name: str
    params: Any = dataclasses.field(repr=False)
    max_seconds: float
    prompt: str | None
    slots: re.Pattern | None
    write: Callable[..., list[str]] = dataclasses.field(repr=False)
    stream: Callable[..., Iterator[str]] = dataclasses.field(repr=False)

    @functools.cached_property
    def checkpoint_sha256(self) -> str:
        """The hash of the logical parameters."""
        return checkpoint.checkpoint_sha256(self.params)

    def places(self, prompt: str) -> int:
        """How many clips a prompt is about.

        Raises:
          ConfigError: a prompt for a model that takes none.
        """
        if prompt and self.prompt is None:
            raise ConfigError(f'{self.name} takes no --prompt: it writes of its own accord.')
        return max(1, len(self.slots.findall(prompt))) if self.slots else 1


def load_speaker(path: str | os.PathLike, step: int | None = None) -> Speaker:
    """The model of a run, a checkpoint or a pretrained folder, see ``alm_jax.load``.

    Raises:
      ConfigError: as ``load``, and for a model that does not hear or does not write.
    """
    return speaker_of(load(path, step), path)


def speaker_of(model: Run | Pretrained, path: str | os.PathLike) -> Speaker:
    """``load_speaker`` of what was loaded from ``path``."""
    for kind, make in _KINDS.items():
        if isinstance(model, kind):
            return make(model)
    raise ConfigError(f'{path} {_what_it_does(model)}')


def _what_it_does(model: Run | Pretrained) -> str:
    """Why a model is no speaker."""
    if hasattr(model, 'embed_audio'):
        return (
            'embeds audio and text and writes nothing. For scores of your own labels: '
            'python -m alm_jax.classify.'
        )
    if hasattr(model, 'generate'):
        return f'({type(model).__name__}) hears nothing: it takes text alone. {_NEEDED}'
    return f'({type(model).__name__}) writes nothing. {_NEEDED}'


_NEEDED = 'Give a model that hears and writes: a generative run, or a folder such as Qwen2-Audio.'


def _of_run(model: AnsweringModel) -> Speaker:
    generators, variables = model.predictors, (model.params, model.extra)

    def write(rows: Sequence[Row], **options: Any) -> list[str]:
        return generators.generate(*variables, rows, **options)

    def stream(row: Row, **options: Any) -> Iterator[str]:
        yield from generators.stream(*variables, row, **options)

    return Speaker(
        name=model.workdir.name,
        params=model.params,
        max_seconds=generators.max_seconds,
        prompt=CAPTION_PROMPT,
        slots=dialogue.SLOT,
        write=write,
        stream=stream,
    )


def _of_audio_lm(model: AudioLm) -> Speaker:
    rate = model.sampling_rate

    def inputs(row: Row) -> tuple[list[np.ndarray], list[int]]:
        clips, turns = row
        ids, order = audio_lm_dialogue.read(model, turns, len(clips))
        return [resample(*clips[number], rate) for number in order], ids

    def write(rows: Sequence[Row], **options: Any) -> list[str]:
        clips, prompts = zip(*map(inputs, rows))
        flat = [clip for own in clips for clip in own]
        return model.generate(flat, prompts, sampling_rate=rate, **options)

    def stream(row: Row, **options: Any) -> Iterator[str]:
        clips, prompt = inputs(row)
        yield from model.stream(clips, prompt, sampling_rate=rate, **options)

    return Speaker(
        name=model.folder.name,
        params=model.params,
        max_seconds=model.max_seconds,
        prompt=CAPTION_PROMPT,
        slots=re.compile(f'{dialogue.SLOT.pattern}|{re.escape(model.place)}'),
        write=write,
        stream=stream,
    )


def _of_captioner(
    model: Pretrained,
    rate: int,
    max_seconds: float,
    prompt: str | None,
    generate: Callable[..., list[str]],
) -> Speaker:
    """Of a model whose texts are about one clip: ``generate(clips, prompts, max_tokens)``."""

    def write(rows: Sequence[Row], *, max_tokens: int, sampling: Sampling) -> list[str]:
        if dataclasses.replace(sampling, seed=0) != GREEDY:
            raise ConfigError(f'{model.folder.name} decodes greedily: give no --temperature etc.')
        clips = [resample(*clips[0], rate) for clips, _ in rows]
        return generate(clips, [turns[-1][0] for _, turns in rows], max_tokens)

    def stream(row: Row, **options: Any) -> Iterator[str]:
        yield from write([row], **options)

    return Speaker(model.folder.name, model.params, max_seconds, prompt, None, write, stream)


def _of_clapcap(model: ClapCapModel) -> Speaker:
    rate, size = model.sampling_rate, model.features.window_samples

    def generate(clips, _, max_tokens):
        return model.generate(clips, sampling_rate=rate, max_tokens=max_tokens)

    return _of_captioner(model, rate, size / rate, None, generate)


def _of_pengi(model: PengiModel) -> Speaker:
    rate, size = model.sampling_rate, model.features.window_samples

    def generate(clips, prompts, max_tokens):
        return model.generate(clips, prompts, sampling_rate=rate, max_tokens=max_tokens)

    return _of_captioner(model, rate, size / rate, 'generate audio caption', generate)


def _of_speech_to_text(model: SpeechToText) -> Speaker:
    rate = model.features.front_end.sampling_rate

    def generate(clips, _, max_tokens):
        return model.generate(clips, sampling_rate=rate, max_tokens=max_tokens)

    return _of_captioner(model, rate, math.inf, None, generate)


_KINDS: dict[type, Callable[[Any], Speaker]] = {
    AnsweringModel: _of_run,
    AudioLm: _of_audio_lm,
    ClapCapModel: _of_clapcap,
    PengiModel: _of_pengi,
    SpeechToText: _of_speech_to_text,
}
