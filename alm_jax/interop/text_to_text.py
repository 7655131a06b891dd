"""What a user does with an encoder and decoder of text from a folder: a text in, another out."""

import functools
from collections.abc import Sequence

from alm_jax.config import ConfigError
from alm_jax.decoding.encoder_decoder import answer
from alm_jax.decoding.generate import Writer, padded
from alm_jax.interop.language_model import LanguageModel


class TextToText(LanguageModel):
    """T5 with the tokenizer.json beside it, or its encoder alone.

    Calling it: (token_ids_bt, token_mask_bt), and for both parts also (decoder_ids_bt,
    decoder_mask_bt); see ``models.text.t5``.
    """

    def generate(self, texts: str | Sequence[str], *, max_tokens: int = 64) -> list[str]:
        """What the decoder writes, greedily, beside each text.

        Args:
          texts: one or several. What the tokenizer adds by itself (</s>) is added.
          max_tokens: at most so many; a stop token ends a text earlier.

        Raises:
          ConfigError: no tokenizer.json, an empty text without any token, or no decoder.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        return self.tokenizer.decode_batch(self.generate_ids(ids, max_tokens=max_tokens))

    def generate_ids(
        self, texts: Sequence[Sequence[int]], *, max_tokens: int = 64
    ) -> list[list[int]]:
        """``generate`` from and to token ids; start and stop tokens are left out.

        Raises:
          ConfigError: a text without any token, or no decoder.
        """
        if not hasattr(self.module, 'decode'):
            raise ConfigError(f'{self.folder} holds an encoder only.')
        if not texts:
            return []
        if not all(texts):
            raise ConfigError('A text without tokens cannot be answered.')
        ids, mask, _ = padded(texts)
        return answer(self._writer, ids, mask, start=self._start, max_tokens=max_tokens)

    @functools.cached_property
    def _writer(self) -> Writer:
        return Writer(self.module, self.params, stop_ids=self.stop_ids, method='decode')

    @property
    def _start(self) -> int:
        """The decoder's first token."""
        name = 'decoder_start_token_id'
        start = self.generation_config.get(name, self.config.get(name))
        return self.config.get('pad_token_id') or 0 if start is None else start
