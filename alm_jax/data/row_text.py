"""The text of a row: a caption, with false ones beside it, or an instruction and its response."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.data import captions, instructions, record, row_keys, scenes
from alm_jax.data.captions import Caption
from alm_jax.data.clips import Record
from alm_jax.data.english import normalised
from alm_jax.data.hard_negatives import hard_negatives
from alm_jax.data.row_keys import Purpose


@dataclasses.dataclass(frozen=True)
class RowText:
    """Options of the text, and how it is made.

    Attributes:
      keyword_share: probability of a caption made from tags where there are captions.
      hard_negatives: false captions wanted for each caption.
      instruction: an instruction and its response instead of a caption.
    """

    keyword_share: float = 0.0
    hard_negatives: int = 0
    instruction: bool = False

    def of_record(self, example: Record, key: int, is_whole: bool) -> dict[str, Any]:
        """{'caption'} and, as options say, 'negatives' or an instruction: see ``ToWindow``."""
        captions.refuse_long(example)
        if self.instruction:
            rng = row_keys.generator(key, Purpose.TEXT)
            return _instructed(*instructions.instruct(example, rng, is_whole))
        text = self.caption(example, key, is_whole).text
        return self._with_negatives(text, [], [example], key)

    def of_scene(self, examples: Sequence[Record], key: int, is_overlaid: bool) -> dict[str, Any]:
        """The same for several records heard one after another, or all at once."""
        for example in examples:
            captions.refuse_long(example)
        rng = row_keys.generator(key, Purpose.TEXT)
        # A scene may cut any of them, so that none is sure to be whole.
        own = [captions.choose(e, rng, self.keyword_share, is_whole=False).text for e in examples]
        combined = scenes.overlaid_caption if is_overlaid else scenes.joined_caption
        text = combined(own, rng)
        if self.instruction:
            return _instructed(*instructions.to_describe(text, rng))
        false = [] if is_overlaid else scenes.misordered_captions(own, rng)
        return self._with_negatives(text, false, examples, key)

    def caption(self, example: Record, key: int, is_whole: bool) -> Caption:
        """The caption of a record, and what it is made from."""
        captions.refuse_long(example)
        rng = row_keys.generator(key, Purpose.TEXT)
        return captions.choose(example, rng, self.keyword_share, is_whole)

    def _with_negatives(
        self, text: str, false: list[str], examples: Sequence[Record], key: int
    ) -> dict[str, Any]:
        """At most ``hard_negatives`` of them; one of ``false`` comes first."""
        if not self.hard_negatives:
            return {'caption': text}
        known = [true for example in examples for true in _true_texts(example)]
        place = row_keys.part(key, Purpose.NEGATIVES)
        made = hard_negatives(text, place, self.hard_negatives, known=known)
        said = {}
        for negative in [*false[:1], *(negative.text for negative in made), *false[1:]]:
            said.setdefault(normalised(negative), negative)
        return {'caption': text, 'negatives': list(said.values())[: self.hard_negatives]}


def _instructed(turns: Sequence[instructions.Turn], task: str) -> dict[str, Any]:
    first = turns[0]
    return {
        'caption': first.response,
        'task': task,
        'instruction': first.instruction,
        'response': first.response,
        'turns': [turn._asdict() for turn in turns],
    }


def _true_texts(example: Record) -> list[str]:
    """All that a record says of its sound."""
    times = [time['text'] for time in example['times']]
    return [*example['captions'], *example['tags'], example['label'], *times]


def group_hash(text: str) -> np.int32:
    """int32; in a batch of b rows two groups collide with probability b**2 / 2**33."""
    return np.uint32(record.stable_hash(text, bits=32)).astype(np.int32)


def group_hashes(texts: Sequence[str], absent: int) -> np.ndarray:
    """int32 [texts + absent], 0 for the absent ones."""
    return np.array([*map(group_hash, texts), *[0] * absent], np.int32)


def text_of(text: Mapping[str, Any]) -> str:
    """What tells one text from another: an answer does so only with its question."""
    turns = text.get('turns', ())
    said = [f'{turn["instruction"]} {turn["response"]}' for turn in turns]
    return ' '.join(said) or text['caption']
