"""CLIP's text encoder as a user has it: texts to embeddings."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from alm_jax.interop.language_model import LanguageModel

ROWS_STEP, TEXT_STEP = 8, 16  # few shapes are compiled


class ClipTextEncoder(LanguageModel):
    """A folder of CLIPTextModel, CLIPTextModelWithProjection or CLIPModel: ``embed_text``.

    Calling it: (token_ids_bt, token_mask_bt) -> see ``models.text.clip_text.ClipText``.
    """

    def embed_text(
        self,
        texts: str | Sequence[str] | None = None,
        *,
        input_ids: np.ndarray | None = None,
        attention_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Unit-norm embeddings, float32 [b, d], of texts or of ready tokens [b, t].

        They are the projected ones, or the pooled ones of a model without a projection. A text of
        more tokens than the model has positions loses its end, but not the token for it.

        Raises:
          ConfigError: texts, but no tokenizer.json.
        """
        if input_ids is None:
            texts = [texts] if isinstance(texts, str) else list(texts)
            encodings = self._cutting.encode_batch(texts)
            longest = max((len(encoding.ids) for encoding in encodings), default=0)
            input_ids = np.zeros((len(texts), longest), np.int32)
            attention_mask = np.zeros(input_ids.shape, bool)
            for row, encoding in enumerate(encodings):
                input_ids[row, : len(encoding.ids)] = encoding.ids
                attention_mask[row, : len(encoding.ids)] = True
        ids = np.asarray(input_ids)
        mask = np.ones(ids.shape, bool) if attention_mask is None else np.asarray(attention_mask)
        rows, length = ids.shape
        width = min(-(-length // TEXT_STEP) * TEXT_STEP, self._positions)
        more = ((0, -rows % ROWS_STEP), (0, max(width - length, 0)))
        pooled = self._program(np.pad(ids, more), np.pad(mask.astype(bool), more))[:rows]
        pooled = np.asarray(pooled)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    @property
    def _positions(self) -> int:
        return self.module.decoder.size.positions

    @functools.cached_property
    def _cutting(self):
        """The tokenizer, set to cut texts."""
        tokenizer = self.tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._positions)
        return tokenizer

    @functools.cached_property
    def _program(self):
        def embed(params, ids, mask):
            outputs = self.module.apply({'params': params}, ids, mask)
            return outputs.get('projected', outputs['pooled'])

        return functools.partial(jax.jit(embed), self.params)
