"""Several turns with a model about the same clips."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from alm_jax.config import ConfigError
from alm_jax.data import audio_files
from alm_jax.data.audio_files import Excerpt
from alm_jax.speaking.speaker import Speaker

SLOT = '<audio>'
MOST_CLIPS = 16


class Conversation:
    """What was heard, asked and answered.

    Attributes:
      clips: (name, excerpt) in the order in which they came.
      turns: (question, answer); each question has ``SLOT`` where a clip came with it.
    """

    def __init__(self, speaker: Speaker, seconds: float, options: Mapping[str, Any]):
        """
        Args:
          speaker: the model.
          seconds: of a clip that are heard at most.
          options: of ``speaker.stream``.

        Raises:
          ConfigError: a model that does not converse.
        """
        if speaker.slots is None:
            raise ConfigError(f'{speaker.name} takes no questions; see python -m alm_jax.caption.')
        self._speaker, self._options = speaker, options
        self._seconds = min(seconds, speaker.max_seconds)
        self.forget()

    def forget(self) -> None:
        """Begins again."""
        self.clips: list[tuple[str, Excerpt]] = []
        self.turns: list[tuple[str, str]] = []

    def hear(self, source: str | os.PathLike | bytes, name: str = '') -> Excerpt:
        """Adds a clip, which the next question is about; a path, or the content of a file.

        Raises:
          AudioError: it cannot be heard, see ``audio_files.excerpts``.
          ConfigError: there are ``MOST_CLIPS`` already.
        """
        if len(self.clips) == MOST_CLIPS:
            raise ConfigError(f'{MOST_CLIPS} clips are the most of a conversation; begin again.')
        excerpt = next(audio_files.excerpts(source, name, longest=self._seconds))
        self.clips.append((name or os.path.basename(os.fspath(source)), excerpt))
        return excerpt

    def answer(self, question: str) -> Iterator[str]:
        """The pieces of an answer as they are written; closing it keeps what there is.

        Raises:
          ConfigError: no clip yet, an empty question, or one that the model cannot take.
        """
        if not self.clips:
            raise ConfigError('give a file first.')
        if not question.strip():
            raise ConfigError('ask something.')
        places = self._speaker.slots
        new = len(self.clips) - sum(len(places.findall(asked)) for asked, _ in self.turns)
        asked = question if places.search(question) else SLOT * new + question
        clips = [(excerpt.waveform, excerpt.rate) for _, excerpt in self.clips]
        pieces: list[str] = []
        try:
            row = clips, [*self.turns, (asked, None)]
            for piece in self._speaker.stream(row, **self._options):
                pieces.append(piece if any(pieces) else piece.lstrip())
                yield pieces[-1]
        except ConfigError:
            pieces = []
            raise
        finally:
            if pieces:
                self.turns.append((asked, ''.join(pieces).rstrip()))
