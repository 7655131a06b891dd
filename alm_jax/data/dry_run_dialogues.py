"""What a dry run counts and shows of rows that are dialogues."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
from ml_collections import ConfigDict

from alm_jax.audio.presets import FrontEnd
from alm_jax.data import location
from alm_jax.data.dialogue_tokens import AUDIO
from alm_jax.text.language_tokenizer import LanguageTokenizer

_SHOWN = 2000  # characters of the row that is shown


def tokenizer(config: ConfigDict, captions: Iterable[str]) -> tuple[LanguageTokenizer, str]:
    """The tokenizer, and whose it is; one trained on ``captions`` where it is not fetched."""
    name = config.text.tokenizer
    if not name.startswith('packaged:'):
        return LanguageTokenizer.load(name), name
    package = name.removeprefix('packaged:')
    folder = location.data_dir(config.data.dir) / 'weights' / package
    if (folder / 'tokenizer.json').is_file():
        return LanguageTokenizer.load(folder), name
    missing = f'{name} is not fetched (python -m alm_jax.prepare weights/{package})'
    return LanguageTokenizer.train(captions), f'the captions, as {missing}'


def vectors_of_frames(
    front_end: FrontEnd, window_samples: int, vectors_a_second: float
) -> np.ndarray:
    """int32 [frames + 1]: vectors of audio of so many frames, begun ones counted."""
    frames = np.arange(front_end.num_frames(window_samples) + 1)
    seconds = frames * front_end.hop_length / front_end.sampling_rate
    return np.ceil(seconds * vectors_a_second).astype(np.int32)


@dataclasses.dataclass
class Sequences:
    """What was counted over batches of dialogues.

    Attributes:
      places: what a place of a row holds -> how many.
      rows, sequences: of all batches.
      first: arrays of the first row.
    """

    places: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    rows: int = 0
    sequences: int = 0
    first: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def add(self, batch: dict[str, np.ndarray]) -> None:
        """Counts one batch."""
        ids, answers = batch['token_ids'], batch['loss_mask']
        used = batch['segments'] > 0
        counts = {'audio': ids == AUDIO, 'answers': answers, 'padding': ~used}
        counts['prompts'] = used & ~answers & (ids != AUDIO)
        self.places.update({what: int(here.sum()) for what, here in counts.items()})
        self.rows += len(ids)
        self.sequences += int(batch['segments'].max(axis=1).sum())
        names = ('token_ids', 'segments', 'loss_mask')
        self.first = self.first or {name: batch[name][0].copy() for name in names}

    def lines(self, tokenizer: LanguageTokenizer, whose: str, vectors_a_second: float) -> list[str]:
        """What to print."""
        total = self.places.total()
        shares = [
            f'{self.places[what] / total:.1%} {what}'
            for what in ('audio', 'prompts', 'answers', 'padding')
        ]
        length = total // self.rows
        return [
            f'places    {length} of a row, tokens of {whose}: {", ".join(shares)}; '
            f'{self.sequences / self.rows:.2f} dialogues a row',
            f'vectors   of audio: {vectors_a_second:g} a second (--vectors_a_second)',
            'a row     [vectors of audio], and what is to be predicted in «»:',
            *(f'  {line}' for line in self._shown(tokenizer)[:_SHOWN].splitlines()),
        ]

    def _shown(self, tokenizer: LanguageTokenizer) -> str:
        text = ''
        columns = [self.first[name].tolist() for name in ('segments', 'loss_mask', 'token_ids')]
        used = [(number, answer, i) for number, answer, i in zip(*columns) if number]
        for (_, answer, is_audio), part in itertools.groupby(
            used, lambda place: (*place[:2], place[2] == AUDIO)
        ):
            ids = [i for _, _, i in part]
            said = f'[{len(ids)}]' if is_audio else tokenizer.decode(ids, skip_special=False)
            text += f'«{said}»' if answer else said
        return text
