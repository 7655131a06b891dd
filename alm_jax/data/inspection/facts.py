"""What the planning columns say of every record of a dataset, without reading audio or text."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from alm_jax.data.hygiene import recordings

CATEGORIES = ('kind', 'language', 'licence', 'provenance', 'package', 'label')
DURATIONS = np.concatenate([[0], np.geomspace(0.05, 3600, 49), [np.inf]])  # seconds, edges
CAPTION_CHARS = np.concatenate([[0], np.arange(1, 401, 10), [np.inf]])
SHORTEST = 0.1  # seconds
LONGEST = 600.0
LONGEST_CAPTION = 1000  # characters
QUIET_PEAK = -40.0  # dB below full scale
SILENT = 0.99  # of the frames
_ROWS_KEPT = 12  # of each suspicion
_NUMBERS = (
    'num_samples',
    'rate',
    'duration',
    'num_captions',
    'caption_chars',
    'num_turns',
    'loudness',
    'peak',
    'silence',
)


@dataclasses.dataclass
class Tally:
    """Records, and their seconds."""

    records: int = 0
    seconds: float = 0.0


@dataclasses.dataclass
class Suspicion:
    """Records that are likely not as they should be.

    Attributes:
      of: how many records were looked at.
      count: how many are suspicious.
      rows: (part, number of the record) of some.
    """

    of: int = 0
    count: int = 0
    rows: list[tuple[int, int]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Facts:
    """Of all records of some sources.

    Attributes:
      parts: source name -> its tally, recordings and records beyond the first of a recording.
      categories: column -> value -> tally.
      rates: Hz -> tally.
      durations: counts between DURATIONS.
      captions: captions of a record -> records.
      caption_chars: counts between CAPTION_CHARS, of the longest caption of a record that has one.
      turns: questions of all records.
      suspicions: reason -> where.
    """

    parts: dict[str, tuple[Tally, int, int]]
    categories: dict[str, dict[str, Tally]]
    rates: dict[int, Tally]
    durations: np.ndarray
    captions: collections.Counter
    caption_chars: np.ndarray
    turns: int
    suspicions: dict[str, Suspicion]

    @property
    def total(self) -> Tally:
        """Of all parts."""
        tallies = [tally for tally, _, _ in self.parts.values()]
        return Tally(sum(t.records for t in tallies), sum(t.seconds for t in tallies))


def gather(parts: Sequence) -> Facts:
    """Reads the index of each source once, a stretch at a time."""
    facts = Facts(
        parts={},
        categories={name: {} for name in CATEGORIES},
        rates={},
        durations=np.zeros(len(DURATIONS) - 1, np.int64),
        captions=collections.Counter(),
        caption_chars=np.zeros(len(CAPTION_CHARS) - 1, np.int64),
        turns=0,
        suspicions={},
    )
    with tqdm(total=sum(map(len, parts)), desc='Index', unit='record', disable=None) as bar:
        for number, source in enumerate(parts):
            tally = Tally()
            seen = 0
            for start, batch in source.index.parts(*CATEGORIES, *_NUMBERS):
                keep = recordings.belongs(source, range(start, start + batch.num_rows))
                if not isinstance(keep, slice):
                    batch = batch.take(pa.array(keep))
                _add(facts, tally, batch, number, seen)
                seen += batch.num_rows
                bar.update(batch.num_rows)
            facts.parts[source.name] = (tally, *recordings.repeated(source))
    return facts


def _add(facts: Facts, tally: Tally, batch: pa.RecordBatch, part: int, first: int) -> None:
    columns = {name: batch.column(name).to_numpy() for name in _NUMBERS}
    seconds = columns['duration'].astype(np.float64)
    tally.records += batch.num_rows
    tally.seconds += float(seconds.sum())
    facts.durations += np.histogram(seconds, DURATIONS)[0]
    facts.turns += int(columns['num_turns'].sum())
    counts = np.bincount(columns['num_captions'].astype(np.int64))
    facts.captions.update({n: int(c) for n, c in enumerate(counts.tolist()) if c})
    chars = columns['caption_chars'][columns['num_captions'] > 0]
    facts.caption_chars += np.histogram(chars, CAPTION_CHARS)[0]
    for name in CATEGORIES:
        column = batch.column(name)
        _tally(facts.categories[name], column.dictionary.to_pylist(), column.indices, seconds)
    rates, codes = np.unique(columns['rate'], return_inverse=True)
    _tally(facts.rates, rates.tolist(), codes, seconds)
    for reason, bad in _suspicious(columns).items():
        suspicion = facts.suspicions.setdefault(reason, Suspicion())
        suspicion.of += batch.num_rows
        found = np.flatnonzero(bad)
        suspicion.count += len(found)
        room = _ROWS_KEPT - len(suspicion.rows)
        suspicion.rows += [(part, first + int(row)) for row in found[:room]]


def _tally(into: dict, values: Sequence, codes, seconds: np.ndarray) -> None:
    codes = np.asarray(codes, np.int64)
    counts = np.bincount(codes, minlength=len(values))
    sums = np.bincount(codes, seconds, minlength=len(values))
    for value, count, total in zip(values, counts.tolist(), sums.tolist()):
        if count:
            tally = into.setdefault(value, Tally())
            tally.records += count
            tally.seconds += total


def _suspicious(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Reason -> bool [n]. What a dataset does not know (NaN) is not held against it."""
    nothing_said = (columns['num_captions'] == 0) & (columns['num_turns'] == 0)
    expected = columns['num_samples'] / np.maximum(columns['rate'], 1)
    return {
        'no audio': columns['num_samples'] == 0,
        f'shorter than {SHORTEST:g} s': (columns['duration'] > 0)
        & (columns['duration'] < SHORTEST),
        f'longer than {LONGEST / 60:g} minutes': columns['duration'] > LONGEST,
        'length and rate disagree with the duration': (columns['num_samples'] > 0)
        & (np.abs(expected - columns['duration']) > 0.01 + 0.001 * columns['duration']),
        'neither caption nor question': nothing_said,
        f'caption of more than {LONGEST_CAPTION} characters': columns['caption_chars']
        > LONGEST_CAPTION,
        'silent throughout, as stored': columns['silence'] > SILENT,
        f'peak below {QUIET_PEAK:g} dB, as stored': columns['peak'] < QUIET_PEAK,
    }
