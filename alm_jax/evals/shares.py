"""Embeddings for an evaluation: each process decodes and embeds its share, all get the whole.

Items are dealt round-robin. An item's embedding depends on it alone (``tasks.predictors``), so the
result is that of one process, bit for bit, however many items a process gets and windows they have.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from alm_jax import distributed
from alm_jax.evals import records
from alm_jax.tasks.predictors import Predictors


def embed_clips(
    predictors: Predictors, params: Any, extra: Any, source: records.Records, rows: Sequence[int]
) -> np.ndarray:
    """``predictors.embed_audio`` of the given rows: float32 [rows, d]. All processes call it."""
    clips = records.clips(source, _mine(rows))
    return _all(predictors.embed_audio(params, extra, clips), len(rows))


def embed_texts(
    predictors: Predictors, params: Any, extra: Any, texts: Sequence[str]
) -> np.ndarray:
    """``predictors.embed_text``: float32 [texts, d]. All processes call it."""
    return _all(predictors.embed_text(params, extra, _mine(texts)), len(texts))


def _mine(items: Sequence[Any]) -> Sequence[Any]:
    return items[jax.process_index() :: jax.process_count()]


def _all(mine: np.ndarray, count: int) -> np.ndarray:
    """The rows of all processes in the order of the items that ``_mine`` dealt."""
    parts = distributed.gather_bytes(mine.tobytes())
    whole = np.zeros((count, sum(map(len, parts)) // mine.itemsize // max(count, 1)), mine.dtype)
    for process, part in enumerate(parts):
        share = whole[process :: len(parts)]
        share[:] = np.frombuffer(part, mine.dtype).reshape(share.shape)
    return whole
