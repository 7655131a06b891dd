"""What a user does with a language model that was read from a folder: let it continue a text."""

from collections.abc import Sequence

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.decoding import greedy
from alm_jax.interop.language_model import LanguageModel

PROMPT_STEP = 32  # prompts are padded to a multiple of this, so that few lengths are compiled


class CausalLm(LanguageModel):
    """A decoder with the tokenizer.json beside it.

    Calling it: (token_ids_bt, token_mask_bt) -> 'embeddings', 'hidden', 'tokens', 'logits'; see
    ``models.text.decoder.Decoder``.
    """

    def generate(self, prompts: str | Sequence[str], *, max_tokens: int = 64) -> list[str]:
        """Continues each prompt greedily, as plain text: no chat template is applied.

        Args:
          prompts: one text or several. What the tokenizer adds by itself (Llama's <s>) is added.
          max_tokens: at most so many; a stop token ends a text earlier.

        Returns:
          The continuations without their prompts and without special tokens.

        Raises:
          ConfigError: no tokenizer.json, an empty prompt, or more tokens than learned positions.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(prompts)]
        return self.tokenizer.decode_batch(self.generate_ids(ids, max_tokens=max_tokens))

    def generate_ids(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: int = 64
    ) -> list[list[int]]:
        """``generate`` from and to token ids; the stop token is left out.

        Raises:
          ConfigError: an empty prompt, or more tokens than learned positions.
        """
        if not prompts:
            return []
        if not all(prompts):
            raise ConfigError('A prompt without tokens cannot be continued.')
        longest = max(len(prompt) for prompt in prompts)
        positions = self.module.size.positions
        if positions and longest + max_tokens - 1 > positions:
            raise ConfigError(
                f'{longest} tokens and {max_tokens} more do not fit into the {positions} positions '
                f'of {self.folder}.'
            )
        ids = np.zeros((len(prompts), -(-longest // PROMPT_STEP) * PROMPT_STEP), np.int32)
        mask = np.zeros(ids.shape, bool)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
            mask[row, : len(prompt)] = True
        tokens, count = greedy.continue_prompt(
            self.module, self.params, ids, mask, max_tokens=max_tokens, stop_ids=self.stop_ids
        )
        tokens = np.asarray(tokens)
        return [tokens[row, :length].tolist() for row, length in enumerate(np.asarray(count))]
