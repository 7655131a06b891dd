"""Which records share a row of dialogues: planned from their tokens and vectors of audio.

The texts of all records are tokenised once for a version of a dataset, and their lengths kept; the
vectors of audio follow from the lengths in the index. Both are bounds, so that what is planned to
fit does. Then ``packing`` plans rows as it does for clips in a window.
"""

import hashlib
import pathlib

import numpy as np
from tqdm import tqdm

from alm_jax.data import mapped, packing, pools
from alm_jax.data.dialogue_rows import ToDialogues
from alm_jax.data.pools import Pool
from alm_jax.data.sources import Source

_VERSION = 1  # of what is kept
_STEPS = 1 << 13  # longer rows are planned in steps of several tokens


def make_pool(source: Source, rows: ToDialogues, cache_dir: pathlib.Path) -> Pool:
    """Plans the rows of a source: every record is in one, with no more tokens than a row has.

    A record that is too long by itself has a row of its own, and is told when it is read.

    Args:
      source: its index has the durations.
      rows: makes them.
      cache_dir: where lengths are kept.
    """
    texts, clips = lengths(source, rows, cache_dir)
    vectors, places = audio_bound(source, rows, clips)
    tokens = texts + vectors
    members, sizes = [], []
    for count in np.unique(places).tolist():  # with as many places each, counting records will do
        here = np.flatnonzero(places == count)
        most = max(1, rows.window.max_clips // count)
        packed, offsets = packing.pack(tokens[here], rows.length, most, min(rows.length, _STEPS))
        members.append(here[packed])
        sizes.append(np.diff(offsets))
    offsets = np.cumsum(np.concatenate([[0], *sizes]))
    return Pool((len(offsets) - 1,), np.concatenate(members).astype(np.uint32), offsets)


def lengths(
    source: Source, rows: ToDialogues, cache_dir: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens of the text of each record with its markup, its clips in a row), int [n] each."""
    window, dialogue = rows.window, rows.dialogue
    seconds = window.window_samples / window.sampling_rate
    drawn = (window.text, window.max_clips, seconds, dialogue.format, dialogue.tokenizer.sha256)
    name = hashlib.sha256(repr((_VERSION, source.digest, *drawn)).encode()).hexdigest()[:24]
    kept = pathlib.Path(cache_dir, name, 'lengths.npy')
    if source.digest and kept.is_file():
        return tuple(mapped.Mapped(kept)[:].astype(np.int64))
    bar = tqdm(range(len(source)), desc=f'Lengths of {source.name}', unit='record', disable=None)
    found = np.array([rows.text_tokens(source.read(i)) for i in bar], np.int64).T
    if source.digest:
        mapped.save(kept, found.astype(np.int32))
    return tuple(found)


def audio_bound(
    source: Source, rows: ToDialogues, clips: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(vectors of audio, windows) of each record's ``clips`` in a row, int [n], at the most."""
    seconds = np.concatenate([part for _, part in pools.durations(source)]).astype(np.float64)
    seconds = seconds * (1 + 1e-6) + rows.tail_seconds  # float32 in the index; resampling rounds up
    samples = np.ceil(seconds * rows.window.sampling_rate).astype(np.int64) + 1
    samples = np.minimum(samples, rows.window.window_samples)
    rising = np.maximum.accumulate(rows.vectors_of_frames)
    full, rest = np.divmod(samples, rows.window_samples)
    of_window, of_rest = (rising[rows.front_end.num_frames(n)] for n in (rows.window_samples, rest))
    return (full * of_window + np.where(rest, of_rest, 0)) * clips, (full + (rest > 0)) * clips
