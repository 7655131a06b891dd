"""SALMONN as a user has it, and how its four checkpoints become one folder.

  python -m alm_jax.interop.salmonn SPEECH SOUNDS TEXT TRAINED DST [--set lora_rank=8 ...]

SPEECH is a folder of Whisper large-v2, TEXT one of Vicuna, as Hugging Face has them; SOUNDS and
TRAINED are made of BEATs' .pt and SALMONN's .pth by ``python -m alm_jax.interop.from_torch``.
"""

import argparse
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS
from alm_jax.config import ConfigError
from alm_jax.interop import tensor_files, whisper
from alm_jax.interop.audio_lm import AudioLm, Windows

SPEECH_HERE = '<SpeechHere>'
TEMPLATE = 'USER: {}\nASSISTANT:'  # what the original writes around a question
AUDIO_ID = -2  # no token of the vocabulary stands for audio
BOS = '<s>'


class Salmonn(AudioLm):
    """Answers to questions about the first 30 s of clips. UNPROVEN as a whole, see its family.

    The original decodes with a beam of 4, this greedily. A prompt is a question, which gets
    ``prompt_template`` of config.json around it, or holds <SpeechHere> and is taken as it is.
    """

    slot = '<Speech>{}</Speech> '
    place = SPEECH_HERE
    answer = ' {}</s>'

    @property
    def turn(self) -> str:
        """prompt_template of config.json, else the published model's."""
        return self.config.get('prompt_template', TEMPLATE)

    @property
    def features(self) -> whisper.Features:
        """Of preprocessor_config.json; without one, the published model's."""
        if (self.folder / 'preprocessor_config.json').is_file():
            return super().features
        return whisper.Features.of({'feature_size': self._mels})

    @property
    def _mels(self) -> int:
        return self.module.audio.bins[0]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return super().stop_ids or (2,)  # </s>

    def windows(self, clip: np.ndarray) -> Windows:
        """One window: Whisper's log-mel of 30 s beside the fbank of a second or more."""
        rate = self.sampling_rate
        clip = clip[: self.features.window_samples]
        clip = np.pad(clip, (0, max(rate - len(clip), 0)))
        mel = self.features(clip)[0]
        patch = self.module.audio.encoders[1].variant.patch
        fbank = log_mel(clip[None], PRESETS['beats'])[0]
        count = min(len(fbank), len(mel)) // patch * patch
        fbank = np.pad(fbank[:count], ((0, len(mel) - count), (0, 0)))
        return Windows(np.concatenate([mel, fbank], axis=1)[None], np.array([count]))

    def prompt_ids(self, prompt: str) -> list[int]:
        """<s>, what is before the audio, its place, and what is after it."""
        if SPEECH_HERE not in prompt:
            prompt = self.turn.format(self.slot.format(self.place) + prompt.strip())
        before, *after = prompt.split(SPEECH_HERE)
        start = self.tokenizer.token_to_id(BOS)
        ids = [1 if start is None else start, *self._plain_ids(before)]
        for text in after:
            ids += [AUDIO_ID, *self._plain_ids(text)]
        return ids

    def _plain_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


class Assembled(Mapping):
    """The tensors of the four, under the names that they have within SALMONN."""

    def __init__(self, speech, sounds, text, trained):
        """Takes four mappings of names to arrays."""
        self._places: dict[str, tuple[Mapping, str]] = {}
        for name in speech:
            inner = name.removeprefix('model.')
            if inner.startswith('encoder.'):
                self._places['speech_encoder.' + inner.removeprefix('encoder.')] = speech, name
        self._places |= {f'beats.{name}': (sounds, name) for name in sounds}
        lora = any('.lora_A.' in name for name in trained)
        prefix = 'llama_model.base_model.model.' if lora else 'llama_model.'
        self._places |= {prefix + name: (text, name) for name in text}
        self._places |= {name: (trained, name) for name in trained}

    def __getitem__(self, name: str) -> np.ndarray:
        tensors, theirs = self._places[name]
        return tensors[theirs]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def assemble(
    speech: str, sounds: str, text: str, trained: str, dst: str, settings: Mapping[str, Any]
) -> pathlib.Path:
    """Writes the folder, its tokenizer and its preprocessor_config.json.

    Raises:
      ConfigError: a folder that cannot be read, or ``dst`` holds something.
    """
    folder = pathlib.Path(dst)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f'{folder} is not empty; give a new folder.')
    sources = [tensor_files.TensorFiles(path) for path in (speech, sounds, text, trained)]
    configs = [tensor_files.read_config(path) for path in (speech, sounds, text, trained)]
    tensor_files.write(folder, Assembled(*sources))
    names = ('audio_config', 'beats_config', 'text_config')
    config = {**configs[3], **dict(zip(names, configs)), **settings, 'model_type': 'salmonn'}
    (folder / 'config.json').write_text(json.dumps(config, indent=2, sort_keys=True) + '\n')
    for place, file in ((text, 'tokenizer.json'), (speech, 'preprocessor_config.json')):
        if (pathlib.Path(place) / file).is_file():
            shutil.copyfile(pathlib.Path(place) / file, folder / file)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """See the head of this file."""
    parser = argparse.ArgumentParser('python -m alm_jax.interop.salmonn')
    for name in ('speech', 'sounds', 'text', 'trained', 'dst'):
        parser.add_argument(name, metavar=name.upper())
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
    given = parser.parse_args(arguments)
    settings = {}
    try:
        for item in given.set:
            key, _, value = item.partition('=')
            settings[key] = json.loads(value)
        folders = (given.speech, given.sounds, given.text, given.trained, given.dst)
        folder = assemble(*folders, settings)
    except (ConfigError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'written: {folder}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
