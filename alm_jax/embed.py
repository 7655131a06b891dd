"""Embeds audio files into a table that ``alm_jax.search`` looks through.

python -m alm_jax.embed FILES_OR_FOLDERS... --workdir runs/tiny --out emb.parquet
python -m alm_jax.embed --data packaged_sounds/tiny:test --workdir runs/tiny --out emb.parquet
python -m alm_jax.embed --data my_folder --captions my.csv --workdir runs/tiny --out emb.parquet

One row a clip: path (or record id), duration in seconds, caption ('' for files), and the unit-norm
embedding as a fixed-size list of float32. The file's metadata say which checkpoint and front end
made it. A file that cannot be embedded is named, and the exit code is then 1.
"""

import dataclasses
import os
import sys
import urllib.parse
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import tqdm
from absl import flags

from alm_jax import config as config_lib
from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data import audio_files, parquet_out, sources
from alm_jax.data.location import data_dir
from alm_jax.load import Model, load_towers


@dataclasses.dataclass(frozen=True)
class Clip:
    """One mono waveform [n] (int16, or float32 in [-1, 1]) at ``rate`` Hz, to be one row."""

    path: str
    waveform: np.ndarray
    rate: int
    caption: str = ''


class Clips:
    """Clips decoded as they are asked for; remembers the rows, and the clips that were bad."""

    def __init__(self, total: int, clips: Iterator[Clip | AudioError]):
        self._clips = tqdm.tqdm(clips, total=total, unit='clip', desc='embed')
        self.rows: list[dict] = []
        self.bad: list[str] = []

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        for clip in self._clips:
            if isinstance(clip, AudioError):
                self.bad.append(str(clip))
                continue
            seconds = len(clip.waveform) / clip.rate
            if seconds < audio_files.SHORTEST:
                self.bad.append(
                    f'{clip.path} is {seconds:.4f} s long; at least {audio_files.SHORTEST} s.'
                )
                continue
            self.rows.append({'path': clip.path, 'duration': seconds, 'caption': clip.caption})
            yield clip.waveform, clip.rate


def from_files(paths: Sequence[str]) -> Clips:
    """The audio files among ``paths``. Raises ConfigError, see ``audio_files.found``."""
    files = audio_files.found(paths)
    return Clips(len(files), map(_decoded, files))


def _decoded(path: str) -> Clip | AudioError:
    try:
        return Clip(path, *decode.decode(path))
    except AudioError as error:
        return error


def from_data(name: str, captions: str = '', data_dir_flag: str = '') -> Clips:
    """The records of a dataset ('NAME/config:split'), or of a folder and its captions file."""
    if captions:
        name = f'folder:{name}?{urllib.parse.urlencode({"captions": captions})}'
    source = sources.open_source(name, data_dir(data_dir_flag))

    def read(index: int) -> Clip | AudioError:
        try:
            record = source[index]
        except AudioError as error:
            return error
        return Clip(record['id'], record['audio'], record['rate'], record['captions'][0])

    return Clips(len(source), map(read, range(len(source))))


def embed(model: Model, clips: Clips, out: str | os.PathLike) -> int:
    """Embeds ``clips`` and writes the parquet file ``out`` atomically; returns the rows written.

    Raises:
      ConfigError: not one clip could be read, or ``out`` cannot be written.
    """
    out = parquet_out.check_place(out)
    embeddings = model.predictors.embed_audio(model.params, model.extra, clips)
    if not clips.rows:
        raise ConfigError('no clip could be read:\n  ' + '\n  '.join(clips.bad[:10]))
    flat = pa.array(np.ascontiguousarray(embeddings, np.float32).reshape(-1))
    table = pa.Table.from_pylist(clips.rows, _ROW).append_column(
        'embedding', pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
    )
    made_by = {
        'checkpoint_sha256': model.checkpoint_sha256,
        'front_end_sha256': model.front_end_sha256,
        'workdir': str(model.workdir),
        'step': str(model.step),
    }
    parquet_out.write(out, table.schema.with_metadata(made_by), [table])
    return len(clips.rows)


_ROW = pa.schema([('path', pa.string()), ('duration', pa.float32()), ('caption', pa.string())])


def main(argv: list[str]) -> int:
    """See the head of this file."""
    given = flags.FLAGS
    paths = argv[1:]
    if bool(paths) == bool(given.data):
        raise ConfigError('give files or folders to embed, or --data (not both).')
    if not given.workdir:
        raise ConfigError('give --workdir RUN: the trained model.')
    clips = from_files(paths) if paths else from_data(given.data, given.captions, given.data_dir)
    rows = embed(load_towers(given.workdir, given.step), clips, given.out)
    print(f'{rows} clips embedded, written to {given.out}')
    if clips.bad:
        print(f'{len(clips.bad)} could not be read:', *clips.bad, sep='\n  ', file=sys.stderr)
    return 1 if clips.bad else 0


if __name__ == '__main__':
    flags.DEFINE_string('workdir', '', 'The run whose model embeds.')
    flags.DEFINE_integer('step', None, 'Which checkpoint; the newest complete one when not given.')
    flags.DEFINE_string('data', '', 'NAME/config:split, or a folder with --captions.')
    flags.DEFINE_string('captions', '', 'CSV or JSONL beside the folder of --data: file,caption.')
    flags.DEFINE_string('data_dir', '', 'Where prepared data lies; default $ALM_JAX_DATA.')
    flags.DEFINE_string('out', 'emb.parquet', 'The file to write.')
    config_lib.run(main)
