"""Captions of some files, a few of which are in memory at a time."""

import collections
import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from alm_jax.config import ConfigError
from alm_jax.data import audio_files
from alm_jax.data.audio_files import Excerpt
from alm_jax.data.record import stable_hash
from alm_jax.decoding.sampling import Sampling
from alm_jax.speaking.speaker import Row, Speaker

Cells = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Order:
    """What is asked of every file. Together with file and checkpoint it decides the captions.

    Attributes:
      prompt: of files without one of their own.
      max_tokens: of a caption.
      sampling: how it is drawn; each excerpt has a seed of its own, made of this one, its file and
        its start.
      seconds: of a file that are heard at most.
      every_seconds: windows that the whole of a file is cut into; 0 is one, from the start.
      batch_size: clips at a time.
    """

    prompt: str
    max_tokens: int
    sampling: Sampling
    seconds: float
    every_seconds: float = 0.0
    batch_size: int = 8

    def excerpts(self, source: str | pathlib.Path) -> Iterator[Excerpt]:
        """What is heard of a file. Raises AudioError."""
        every = self.every_seconds or None
        return audio_files.excerpts(source, longest=self.seconds, every=every)

    def seeded(self, excerpts: Sequence[tuple[str, float]]) -> Sampling:
        """The sampling of excerpts, (file, start in seconds) each."""
        parts = (f'{self.sampling.seed} {start} {file}' for file, start in excerpts)
        seeds = tuple(stable_hash(part, bits=32) for part in parts)
        return dataclasses.replace(self.sampling, seed=seeds)


def captions(
    speaker: Speaker, order: Order, entries: Iterable[tuple[str, str]], root: pathlib.Path
) -> Iterator[Cells]:
    """Of every excerpt, in order: 'file', 'prompt', 'start' and 'seconds' heard, 'total' seconds of
    the file, 'caption'; of a bad file 'problem', the others being '' and 0.

    Args:
      speaker: the model.
      order: what is asked.
      entries: (file, prompt).
      root: where relative paths start.
    """
    rows: list[tuple[Cells, Excerpt | None]] = []
    for row in _ahead(_heard(speaker, order, entries, root), 2 * order.batch_size):
        rows.append(row)
        if sum(excerpt is not None for _, excerpt in rows) == order.batch_size:
            yield from _written(speaker, order, rows)
            rows = []
    yield from _written(speaker, order, rows)


def _heard(
    speaker: Speaker, order: Order, entries: Iterable[tuple[str, str]], root: pathlib.Path
) -> Iterator[tuple[Cells, Excerpt | None]]:
    """(cells, excerpt); of a bad file its problem, and no excerpt."""
    for file, prompt in entries:
        row = {'file': file, 'prompt': prompt, 'caption': '', 'problem': ''}
        row |= dict.fromkeys(('start', 'seconds', 'total'), 0.0)
        try:
            if (places := speaker.places(prompt)) != 1:
                raise ConfigError(f'its prompt has {places} places for audio: {prompt!r:.200}.')
            for excerpt in order.excerpts(root / file):
                times = {name: getattr(excerpt, name) for name in ('start', 'seconds', 'total')}
                yield row | times, excerpt
        except ValueError as error:  # what is wrong with a file, or a NUL in its name
            yield row | {'problem': str(error)}, None


def _written(
    speaker: Speaker, order: Order, rows: Sequence[tuple[Cells, Excerpt | None]]
) -> Iterator[Cells]:
    """The cells with captions of the excerpts, or with the problems that there were."""

    def write(part: Sequence[tuple[Cells, Excerpt]]) -> list[str]:
        full = [*part, *part[:1] * (order.batch_size - len(part))]  # one size is compiled
        asked: list[Row] = [
            ([(e.waveform, e.rate)], [(cells['prompt'], None)]) for cells, e in full
        ]
        sampling = order.seeded([(cells['file'], cells['start']) for cells, _ in full])
        return speaker.write(asked, max_tokens=order.max_tokens, sampling=sampling)

    good = [row for row in rows if row[1] is not None]
    try:
        texts = write(good) if good else []
    except ConfigError:  # some of them cannot be heard
        texts = []
        for row in good:
            try:
                texts += write([row])[:1]
            except ConfigError as error:
                texts.append('')
                row[0]['problem'] = str(error)
    for (cells, _), text in zip(good, texts):
        cells['caption'] = text.strip()
    yield from (cells for cells, _ in rows)


def _ahead(items: Iterator[Any], count: int) -> Iterator[Any]:
    """The items, of which ``count`` are made ahead by a thread."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as thread:
        waiting = collections.deque(thread.submit(next, items, None) for _ in range(count))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, items, None))
            yield item
