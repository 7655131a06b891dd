"""What a source of packaged recordings yields: one clip with its own text, before captions."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Clip:
    """One recording found in a package.

    Attributes:
      package: short name of the source ('gcompris').
      member: path inside the package, or a key inside its container; unique in the package.
      read: decodes the recording: (int16 mono [n], rate in Hz). Called once, lazily.
      kind: 'sound', 'instrument' or 'speech'.
      group: what must stay on one side of a split: source recording, prompt key or concept.
      title: the source's own text about the clip ('Tropical: Lion roar', 'footsteps/gravel3').
      label: class name of the taxonomy in classes.py, or ''.
      tags: further words.
      language: BCP-47 of the speech, or ''.
      transcript: what is said, in that language, or ''.
      translation: English for ``transcript``, or ''.
      licence: SPDX-like text as the package states it for this file.
      author: as stated, or ''.
      phrase: the title as a noun phrase ('footsteps on gravel'), or ''.
      sentences: English sentences that the source itself says about the clip.
    """

    package: str
    member: str
    read: Callable[[], tuple[np.ndarray, int]]
    kind: str
    group: str
    title: str
    licence: str
    label: str = ''
    tags: tuple[str, ...] = ()
    language: str = ''
    transcript: str = ''
    translation: str = ''
    author: str = ''
    phrase: str = ''
    sentences: tuple[str, ...] = ()
