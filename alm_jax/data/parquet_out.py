"""Parquet files that are there whole or not at all."""

import os
import pathlib
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from alm_jax.config import ConfigError

ROWS = 1 << 16  # of a row group at most


def check_place(out: str | os.PathLike) -> pathlib.Path:
    """``out`` as a path. Raises ConfigError when its folder does not exist."""
    out = pathlib.Path(out)
    if not out.parent.is_dir():
        raise ConfigError(f'folder {out.parent} of --out does not exist.')
    return out


def write(out: str | os.PathLike, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Writes ``tables`` one after another; in memory there is a row group of them.

    Args:
      out: replaced when all is written.
      schema: of the tables; its metadata become the file's.
      tables: of any number of rows.

    Raises:
      ConfigError: it cannot be written.
    """
    out = pathlib.Path(out)
    partial = out.with_name(f'.{out.name}.{os.getpid()}')
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            waiting: list[pa.Table] = []
            for table in tables:
                waiting.append(table.cast(schema))
                if sum(map(len, waiting)) >= ROWS:
                    writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS)
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS)
        os.replace(partial, out)
    except OSError as error:
        raise ConfigError(f'{out} cannot be written: {error.strerror}.') from error
    finally:
        partial.unlink(missing_ok=True)
