"""Captions of all files of a manifest, as a table: data that other models are trained on.

The files are cut into shards. Process i of n writes every n-th as OUT.parts/NUMBER.parquet, whole
or not at all, and process 0 joins them when all are there. What was finished when a job was killed
is kept: the next job, of however many processes, goes on with the rest.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tqdm

from alm_jax import distributed
from alm_jax.config import ConfigError
from alm_jax.data import parquet_out
from alm_jax.data.catalog import rows
from alm_jax.data.inputs import manifest as manifest_lib
from alm_jax.speaking.shard import Order, captions
from alm_jax.speaking.speaker import Speaker

SCHEMA = pa.schema(
    [
        ('file', pa.string()),  # as the manifest has it
        ('start', pa.float32()),  # seconds from the beginning of the file
        ('seconds', pa.float32()),  # heard
        ('caption', pa.string()),
        ('prompt', pa.string()),
        ('checkpoint_sha256', pa.string()),
        ('sampling', pa.string()),  # JSON
    ]
)
WITH_PROBLEMS = SCHEMA.append(pa.field('problem', pa.string()))  # '' where there is a caption
READERS = {'.csv': rows.read_csv, '.jsonl': rows.read_jsonl, '.parquet': rows.read_parquet}
_SETTINGS = 'settings'  # key of the metadata, name of the file beside the parts
_POLL = 0.5  # seconds
_TOLD = 5  # bad files in a message


def read(manifest: pathlib.Path, default: str) -> Iterator[tuple[str, str]]:
    """(file, prompt) of every row of a .csv, .jsonl or .parquet file, one after another.

    Args:
      manifest: has a column 'file', and may have 'prompt'.
      default: prompt of rows without one.

    Raises:
      ConfigError: names the row and what is wrong.
    """
    kind = manifest.suffix.lower()
    if kind not in READERS:
        raise ConfigError(f'--manifest {manifest} must be one of {", ".join(READERS)}.')
    if not manifest.is_file():
        raise ConfigError(f'--manifest {manifest} does not exist.')
    for row in READERS[kind](manifest.open('rb'), str(manifest)):
        column = next((name for name in manifest_lib.FILE if name in row), 'file')
        if not row.text(column):
            raise row.error(column, 'expected the path of a file')
        yield row.text(column), row.text('prompt', '') or default


@dataclasses.dataclass(frozen=True)
class Batch:
    """The captions of a manifest; every process of a job makes and runs the same.

    Attributes:
      speaker: the model.
      order: what is asked.
      manifest: see ``read``.
      out: the parquet file, of ``SCHEMA``. Bad files are listed beside it, in ``quarantine``.
      root: where relative paths start.
      files_per_shard: what is lost, at most, of each process that is killed.
    """

    speaker: Speaker
    order: Order
    manifest: pathlib.Path
    out: pathlib.Path
    root: pathlib.Path
    files_per_shard: int = 256

    @property
    def parts(self) -> pathlib.Path:
        """The folder of the shards, while there is no output."""
        return self.out.with_name(f'{self.out.name}.parts')

    @property
    def quarantine(self) -> pathlib.Path:
        """The list of bad files: JSONL of file, prompt and problem; none when there are none."""
        return self.out.with_name(f'{self.out.stem}.quarantine.jsonl')

    def run(self) -> tuple[int, int]:
        """Makes the output, unless it is there; (captions, bad files) on process 0.

        Raises:
          ConfigError: a manifest that cannot be read, an output or shards that were made otherwise,
            not one good file among the first.
        """
        parquet_out.check_place(self.out)
        distributed.check_equal('checkpoint', self.speaker.checkpoint_sha256)
        first = jax.process_index() == 0
        with _locked(self.parts) if first else contextlib.nullcontext():
            settings = json.loads(distributed.from_first(lambda: json.dumps(self._begin())))
            if not settings.pop('is_done'):
                self._work(settings['files'])
                if first:
                    self._join(settings)
            if not first:
                return 0, 0
            shutil.rmtree(self.parts)
        bad = self.quarantine.read_bytes().count(b'\n') if self.quarantine.exists() else 0
        return pq.read_metadata(self.out).num_rows, bad

    def _begin(self) -> dict[str, Any]:
        """What the output depends on, as is also written beside the shards, and 'is_done'."""
        settings, place, made = self._settings(), self.parts, None
        file = self.parts / f'{_SETTINGS}.json'
        if self.out.exists():
            place = self.out
            made = (_schema(place).metadata or {}).get(_SETTINGS.encode(), b'{}')
        elif file.exists():
            made = file.read_bytes()
        else:
            partial = file.with_name(f'.{file.name}')
            partial.write_text(json.dumps(settings))
            os.replace(partial, file)
        if made is not None:
            _check_same(place, json.loads(made), settings)
        return {**settings, 'is_done': place == self.out}

    def _settings(self) -> dict[str, Any]:
        files = sum(1 for _ in read(self.manifest, self.order.prompt))
        if not files:
            raise ConfigError(f'--manifest {self.manifest} holds no row.')
        with self.manifest.open('rb') as file:
            digest = hashlib.file_digest(file, 'sha256').hexdigest()
        return {
            **dataclasses.asdict(self.order),
            'model': self.speaker.name,
            'checkpoint_sha256': self.speaker.checkpoint_sha256,
            'manifest_sha256': digest,
            'root': str(self.root.absolute()),
            'files': files,
            'files_per_shard': self.files_per_shard,
        }

    def _work(self, files: int) -> None:
        """Writes the shards of this process that are not there."""
        mine = range(jax.process_index(), self._shards(files), jax.process_count())
        size = self.files_per_shard
        sizes = {shard: min(size, files - shard * size) for shard in mine}
        todo = {shard for shard in mine if not self._is_written(shard)}
        done = sum(sizes[shard] for shard in mine if shard not in todo)
        distributed.total(len(todo))  # nobody joins and removes shards before all have looked
        quiet = jax.process_index() > 0
        with tqdm.tqdm(
            total=sum(sizes.values()), initial=done, unit='file', desc='caption', disable=quiet
        ) as bar:
            entries, bad = read(self.manifest, self.order.prompt), 0
            for shard in range(max(todo, default=-1) + 1):
                block = list(itertools.islice(entries, size))
                if shard not in todo:
                    continue
                rows = []
                for row in captions(self.speaker, self.order, block, self.root):
                    rows.append(row | self._common)
                    bad += bool(row['problem'])
                    bar.set_postfix(bad=bad, refresh=False)
                    bar.update(row['start'] == 0)
                if shard == mine[0]:
                    _check_some([row['problem'] for row in rows])
                table = pa.Table.from_pylist(rows, WITH_PROBLEMS)
                parquet_out.write(self._part(shard), WITH_PROBLEMS, [table])

    @property
    def _common(self) -> dict[str, str]:
        """Cells that all rows have."""
        settings = dataclasses.asdict(self.order.sampling)
        return {
            'checkpoint_sha256': self.speaker.checkpoint_sha256,
            'sampling': json.dumps({'max_tokens': self.order.max_tokens, **settings}),
        }

    def _join(self, settings: Mapping[str, Any]) -> None:
        """Waits for all shards and makes the output of them."""
        shards = range(self._shards(settings['files']))
        for shard in shards:
            while not self._is_written(shard):
                time.sleep(_POLL)
        # The list first: where the table is, all is.
        partial = self.quarantine.with_name(f'.{self.quarantine.name}.{os.getpid()}')
        with partial.open('w', encoding='utf-8') as file:
            for shard in shards:
                columns = ['file', 'prompt', 'problem']
                table = pq.read_table(self._part(shard), columns=columns)
                for row in table.filter(pc.field('problem') != '').to_pylist():
                    file.write(json.dumps(row, ensure_ascii=False) + '\n')
        os.replace(partial, self.quarantine)
        if not self.quarantine.stat().st_size:
            self.quarantine.unlink()
        good = (
            pq.read_table(self._part(shard), filters=pc.field('problem') == '').drop('problem')
            for shard in shards
        )
        metadata = {_SETTINGS: json.dumps(settings)}
        parquet_out.write(self.out, SCHEMA.with_metadata(metadata), good)

    def _shards(self, files: int) -> int:
        return -(-files // self.files_per_shard)

    def _part(self, shard: int) -> pathlib.Path:
        return self.parts / f'{shard:06d}.parquet'

    def _is_written(self, shard: int) -> bool:
        try:
            return bool(pq.read_metadata(self._part(shard)))
        except (OSError, pa.ArrowInvalid):
            return False


def _check_some(problems: Sequence[str]) -> None:
    """Raises ConfigError when no file is good."""
    if all(problems):
        told = '\n  '.join(problems[:_TOLD])
        raise ConfigError(f'not one of the first {len(problems)} files has a caption:\n  {told}')


def _check_same(place: pathlib.Path, made: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises ConfigError, with the differences, when something was made with other settings."""
    differing = [
        f'  {name}: {made.get(name)!r:.80}, now {value!r:.80}'
        for name, value in settings.items()
        if made.get(name) != value
    ]
    if differing:
        told = '\n'.join(differing)
        raise ConfigError(f'{place} was made otherwise:\n{told}\nRemove it, or change --out.')


def _schema(path: pathlib.Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f'--out {path} is there and is no parquet file ({error}).') from error


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """A folder that no other job writes to; nothing is left of it when it stays empty."""
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / 'lock').open('w')
    except OSError as error:
        raise ConfigError(f'{folder} cannot be written: {error.strerror}.') from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f'another program is writing to {folder}.') from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (folder / 'lock').unlink()
                folder.rmdir()
