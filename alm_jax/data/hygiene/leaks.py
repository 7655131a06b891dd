"""Records of one dataset that are in another, such as a test set in what is trained on.

Three kinds are looked for: the same recording id, which costs seconds at 10**8 records; the same
recording under another name, by fingerprint, when asked; and captions that read alike, when asked.
The first two make the blocklist. Captions do not, unless asked: many true captions are short and
are written again and again by different people about different sounds.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.data.hygiene import blocklists, copies, pictures, recordings, texts

_EXAMPLES = 100  # of a kind, in the written report
_EXAMPLES_SHOWN = 5
_EXAMPLES_OF_AN_ERROR = 3
_ROWS_AT_ONCE = 1 << 16


@dataclasses.dataclass(frozen=True)
class Level:
    """What one kind of comparison found.

    Attributes:
      title: of the kind.
      facts: sentences with counts.
      examples: pairs, one a line.
      blocked: recording or record ids to be left out.
    """

    title: str
    facts: tuple[str, ...]
    examples: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found in ``trained`` of ``evaluated`` (None: copies within ``trained``)."""

    trained: str
    evaluated: str | None
    levels: tuple[Level, ...]

    @property
    def blocked(self) -> tuple[str, ...]:
        """Every id to be left out, once."""
        return tuple(dict.fromkeys(name for level in self.levels for name in level.blocked))

    def text(self, examples: int = _EXAMPLES_SHOWN) -> str:
        """The report, with some examples of each kind."""
        lines = [
            f'Records of {self.evaluated} in {self.trained}'
            if self.evaluated
            else f'Copies within {self.trained}'
        ]
        for level in self.levels:
            lines += ['', level.title, *(f'  {fact}' for fact in level.facts)]
            lines += [f'    {example}' for example in level.examples[:examples]]
            more = len(level.examples) - examples
            lines += [f'    ... and {more} more'] * (more > 0)
        return '\n'.join(lines) + '\n'

    def write(self, out: pathlib.Path, made_by: str) -> None:
        """Writes the blocklist ``out`` and, beside it, the report."""
        header = [
            f'{len(self.blocked)} ids that must not be trained on: records of {self.evaluated} '
            f'in {self.trained}.'
            if self.evaluated
            else f'{len(self.blocked)} records of {self.trained} that copy another one.',
            f'Made by: {made_by}',
            f"Use: config.data.train = ({{'name': ..., 'blocklists': ('{out.name}',)}},)",
        ]
        written: set[str] = set()
        groups = []
        for level in self.levels:
            new = [name for name in level.blocked if name not in written]
            written.update(new)
            groups += [('\n'.join((level.title, *level.facts)), new)] if new else []
        blocklists.write(out, header, groups)
        report_path(out).write_text(self.text(_EXAMPLES), encoding='utf-8')


def report_path(out: pathlib.Path) -> pathlib.Path:
    """Where the report of a blocklist lies: that of leaks.txt in leaks.report.txt."""
    return out.with_name(f'{out.stem}.report.txt')


def find(
    train,
    evaluated=None,
    *,
    folder: pathlib.Path,
    audio: bool = False,
    text: bool = False,
    block_text: bool = False,
    workers: int = 2,
) -> Report:
    """Compares two sources, or looks for copies within one.

    Args:
      train: alm_jax.data.sources.Source.
      evaluated: likewise; None looks within ``train``.
      folder: where fingerprints are kept.
      audio: compare fingerprints; reads and decodes every record the first time.
      text: compare captions; reads every record.
      block_text: put the records of such captions on the blocklist.
      workers: processes.
    """
    levels = [_same_recordings(train, evaluated) if evaluated else _repeated_recordings(train)]
    if audio:
        levels.append(_copies(train, evaluated, folder, workers))
    if text:
        levels.append(_captions(train, evaluated, workers, block_text))
    return Report(train.name, evaluated.name if evaluated else None, tuple(levels))


def check_declared(train: Sequence, evaluated: Mapping) -> None:
    """Refuses a training set that holds recordings of a set it is evaluated on.

    Args:
      train: sources, their blocklists applied.
      evaluated: name of the evaluator -> source.

    Raises:
      ConfigError: names both sets, how many recordings they share, some, and the two ways out.
    """
    wanted = {name: recordings.Hashes.of_source(source) for name, source in evaluated.items()}
    every = recordings.Hashes.of(
        np.concatenate([np.zeros(0, np.uint64), *(hashes.values for hashes in wanted.values())])
    )
    for trained in train:
        rows = recordings.rows_with(trained, every)
        found = _hashes(trained, rows)
        for name, hashes in wanted.items():
            if (held := hashes.holds(found)).any():
                raise ConfigError(_refusal(trained, rows[held], name, evaluated[name]))


def _refusal(trained, rows: np.ndarray, evaluator: str, evaluated) -> str:
    names = _texts(trained, 'recording_id', _one_a_recording(trained, rows))
    some = ', '.join(map(repr, names[:_EXAMPLES_OF_AN_ERROR]))
    return (
        f'config.data.train holds {len(rows)} records of {len(names)} recordings that '
        f'config.evals.{evaluator} is scored on: {trained.name} and {evaluated.name} share {some}'
        f'{", ..." * (len(names) > _EXAMPLES_OF_AN_ERROR)}. Leave them out of training:\n'
        '  python -m alm_jax.data leaks TRAIN EVAL --out leaks.txt\n'
        "with the names of both, and 'blocklists': ('leaks.txt',) in the entry of "
        'config.data.train; or train on them all the same: --config.data.allow_leaks=True.'
    )


def _same_recordings(train, evaluated) -> Level:
    rows = recordings.rows_with(train, recordings.Hashes.of_source(evaluated))
    firsts = _one_a_recording(train, rows)
    names = _texts(train, 'recording_id', firsts)
    some = recordings.Hashes.of(_hashes(train, firsts[:_EXAMPLES]))
    theirs = recordings.rows_with(evaluated, some)[:_ROWS_AT_ONCE]
    other = dict(zip(_texts(evaluated, 'recording_id', theirs), _texts(evaluated, 'id', theirs)))
    records = _texts(train, 'id', firsts[:_EXAMPLES])
    return Level(
        'Same recording id',
        (
            f'{len(rows)} of {len(train)} records of {train.name} are of {len(names)} recordings '
            f'that {evaluated.name} holds.',
            *_nameless(train),
            *_nameless(evaluated),
        ),
        (
            *(f'{n}: {r} and {other.get(n, "?")}' for n, r in zip(names, records)),
            *names[_EXAMPLES:],
        ),
        tuple(names),
    )


def _repeated_recordings(source) -> Level:
    distinct, beyond = recordings.repeated(source)
    return Level(
        'Same recording id',
        (
            f'{len(source)} records are of {distinct} recordings; {beyond} are further records of '
            'a recording (cuts of it, or copies).',
            *_nameless(source),
        ),
    )


def _nameless(source) -> tuple[str, ...]:
    without = recordings.without_name(source)
    if not without:
        return ()
    return (f'{without} records of {source.name} name no recording and are not compared.',)


def _copies(train, evaluated, folder: pathlib.Path, workers: int) -> Level:
    mine = pictures.make(train, folder, workers)
    theirs = pictures.make(evaluated, folder, workers) if evaluated else None
    left_out = _left_out(train, mine) + (_left_out(evaluated, theirs) if evaluated else ())
    if theirs is None:
        matches = copies.find(mine, workers=workers)
        groups = _grouped((m.query, m.reference) for m in matches)
        blocked = [train.id(i) for group in groups for i in group[1:]]
        fact = f'{len(blocked)} of {len(train)} records copy one of {len(groups)} others.'
        pairs = [(train.id(m.reference), train.id(m.query), m.correlation) for m in matches]
    else:
        matches = copies.find(theirs, mine, workers)
        trained = sorted({m.reference for m in matches})
        blocked = [_recording_or_id(train, i) for i in trained]
        fact = (
            f'{len(trained)} of {len(train)} records of {train.name} hold the recording of one of '
            f'{len({m.query for m in matches})} of the {len(evaluated)} records of '
            f'{evaluated.name}.'
        )
        pairs = [(train.id(m.reference), evaluated.id(m.query), m.correlation) for m in matches]
    return Level(
        'Same sound, by fingerprint',
        (fact, *left_out),
        tuple(f'{a} sounds as {b} (correlation {c:.2f})' for a, b, c in pairs),
        tuple(dict.fromkeys(blocked)),
    )


def _left_out(source, made: pictures.Pictures) -> tuple[str, ...]:
    if not made.left_out:
        return ()
    return (
        f'{len(made.left_out)} records of {source.name} cannot be decoded and are not compared, '
        f'the first: {made.left_out[0][1]}',
    )


def _captions(train, evaluated, workers: int, block: bool) -> Level:
    mine = texts.of_source(train, workers)
    theirs = texts.of_source(evaluated, workers) if evaluated else mine
    if evaluated:
        equal = texts.same(theirs, mine)
        alike = texts.alike(theirs, mine)
    else:
        equal = [(i, i) for i in range(len(mine)) if len(mine.records(i)) > 1]
        alike = texts.alike(mine)
    records = {int(r) for _, j in equal for r in mine.records(j)}
    near = {int(r) for _, j, _ in alike for r in mine.records(j)} - records
    where = evaluated.name if evaluated else 'another record'
    examples = [
        f'"{theirs.texts[i]}": {len(mine.records(j))} records, {train.id(int(mine.records(j)[0]))}'
        for i, j in sorted(equal, key=lambda pair: -len(mine.texts[pair[1]]))
    ] + [
        f'"{theirs.texts[i]}" reads as "{mine.texts[j]}" ({jaccard:.2f}), '
        f'{train.id(int(mine.records(j)[0]))}'
        for i, j, jaccard in sorted(alike, key=lambda pair: (-pair[2], pair[:2]))
    ]
    return Level(
        'Same caption',
        (
            f'{len(records)} of {len(train)} records of {train.name} have a caption of {where}, '
            f'case and punctuation aside; {len(equal)} of {len(theirs)} different captions.',
            f'{len(near)} more have one of nearly the same words (Jaccard index of at least '
            f'{texts.LEAST_JACCARD}).',
            'They are on the blocklist, as asked.'
            if block
            else 'Not on the blocklist: different people write the same of different sounds '
            '(--block_text puts them there).',
        ),
        tuple(examples),
        tuple(train.id(i) for i in sorted(records | near)) if block and evaluated else (),
    )


def _recording_or_id(source, i: int) -> str:
    return source.index.value('recording_id', source.row(i)) or source.id(i)


def _hashes(source, rows: np.ndarray) -> np.ndarray:
    return source.index.numpy('recording_hash', rows)


def _one_a_recording(source, rows: np.ndarray) -> np.ndarray:
    """Of the rows of each recording the first, in order."""
    _, first = np.unique(_hashes(source, rows), return_index=True)
    return rows[np.sort(first)]


def _texts(source, name: str, rows: np.ndarray) -> list[str]:
    found: list[str] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        found += source.index.numpy(name, rows[start : start + _ROWS_AT_ONCE]).tolist()
    return found


def _grouped(pairs) -> list[list[int]]:
    """Numbers that pairs connect, the smallest first; groups in order of their first."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent.setdefault(i, i) != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        a, b = sorted((root(i), root(j)))
        parent[b] = a
    groups: dict[int, list[int]] = {}
    for i in sorted(parent):
        groups.setdefault(root(i), []).append(i)
    return [groups[first] for first in sorted(groups)]
