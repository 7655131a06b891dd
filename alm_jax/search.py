"""Searches embedded audio by text.

python -m alm_jax.search "a dog barking" --index emb.parquet [--workdir runs/tiny] [--top 10]

The index is what ``alm_jax.embed`` wrote. It is searched with the checkpoint that made it and with
no other: embeddings of two checkpoints cannot be compared.
"""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.load import Model, load_towers

_COLUMNS = ('path', 'duration', 'caption', 'embedding')


def read_index(path: str | os.PathLike) -> tuple[pa.Table, dict[str, str]]:
    """The table and metadata that ``alm_jax.embed`` wrote. Raises ConfigError for another file."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f'index {path} cannot be read as parquet: {error}.') from error
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    missing = sorted(set(_COLUMNS) - set(table.column_names))
    if missing or 'checkpoint_sha256' not in metadata:
        raise ConfigError(
            f'{path} was not written by alm_jax.embed (lacks {missing or "metadata"}).'
        )
    return table, metadata


def model_of(index: str, metadata: dict[str, str], workdir: str = '') -> Model:
    """The checkpoint that made the index.

    Raises:
      ConfigError: it is not in ``workdir`` (default: the run named in the index).
    """
    model = load_towers(workdir or metadata['workdir'], int(metadata['step']))
    if model.checkpoint_sha256 != metadata['checkpoint_sha256']:
        raise ConfigError(
            f'index {index} was made by checkpoint {metadata["checkpoint_sha256"][:12]} of '
            f'{metadata["workdir"]}, but step {model.step} of {model.workdir} is '
            f'{model.checkpoint_sha256[:12]}. Embed the files again with that run, or name the '
            'run of the index.'
        )
    return model


def search(model: Model, table: pa.Table, query: str, top: int) -> list[dict]:
    """The ``top`` rows nearest to ``query``, best first, each with its cosine 'score'."""
    column = table.column('embedding').combine_chunks()
    embeddings = column.flatten().to_numpy().reshape(len(table), -1)
    scores = embeddings.astype(np.float64) @ model.embed_text([query])[0].astype(np.float64)
    rows = table.select(['path', 'duration', 'caption']).to_pylist()
    best = sorted(range(len(rows)), key=lambda row: (-scores[row], rows[row]['path']))[:top]
    return [{**rows[row], 'score': float(scores[row])} for row in best]


def main(argv: list[str]) -> None:
    """See the head of this file."""
    given = flags.FLAGS
    query = ' '.join(argv[1:]).strip()
    if not query:
        raise ConfigError('give what to search for: python -m alm_jax.search "a dog barking".')
    table, metadata = read_index(given.index)
    model = model_of(given.index, metadata, given.workdir)
    print(f'{"rank":>4}  {"score":>6}  {"seconds":>7}  clip')
    for rank, row in enumerate(search(model, table, query, given.top), start=1):
        caption = f'  ({row["caption"]})' if row['caption'] else ''
        print(f'{rank:>4}  {row["score"]:6.3f}  {row["duration"]:7.2f}  {row["path"]}{caption}')


if __name__ == '__main__':
    flags.DEFINE_string('index', 'emb.parquet', 'What alm_jax.embed wrote.')
    flags.DEFINE_string('workdir', '', 'The run; default the one named in the index.')
    flags.DEFINE_integer('top', 10, 'Rows to print.', lower_bound=1)
    config_lib.run(main)
