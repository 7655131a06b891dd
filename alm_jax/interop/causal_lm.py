"""What a user does with a language model that was read from a folder: let it continue a text."""

from collections.abc import Iterator, Sequence

from alm_jax.config import ConfigError
from alm_jax.decoding import beam, streaming
from alm_jax.decoding.beam import Beams
from alm_jax.decoding.generate import GREEDY, padded
from alm_jax.decoding.sampling import Sampling
from alm_jax.interop.language_model import LanguageModel


class CausalLm(LanguageModel):
    """A decoder with the tokenizer.json beside it.

    Calling it: (token_ids_bt, token_mask_bt) -> 'embeddings', 'hidden', 'tokens', 'logits'; see
    ``models.text.decoder.Decoder``.
    """

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        max_tokens: int = 64,
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
        beams: Beams | None = None,
    ) -> list[str]:
        """Continues each prompt, as plain text: no chat template is applied.

        Args:
          prompts: one text or several. What the tokenizer adds by itself (Llama's <s>) is added.
          max_tokens: at most so many; a stop token ends a text earlier.
          sampling: how tokens are chosen; by default the likeliest.
          stops: strings that end a text where they begin.
          beams: searches for the likeliest texts instead.

        Returns:
          The continuations without their prompts and without special tokens.

        Raises:
          ConfigError: no tokenizer.json, an empty prompt, or more tokens than learned positions.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            return []
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(prompts)]
        batch = self._batch(ids, max_tokens)
        options = {'max_tokens': max_tokens, 'sampling': sampling}
        return self._written(batch, stop_strings=stops, beams=beams, **options)

    def stream(
        self, prompt: str, *, max_tokens: int = 64, sampling: Sampling = GREEDY, **options
    ) -> Iterator[str]:
        """``generate`` for one prompt, piece by piece; ``options`` of ``decoding.streaming``."""
        ids, mask, _ = self._batch([self.tokenizer.encode(prompt).ids], max_tokens)
        options = {'max_tokens': max_tokens, 'sampling': sampling, **options}
        for (piece,) in streaming.stream(self._writer, self.tokenizer, ids, mask, **options):
            yield piece

    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int = 64,
        sampling: Sampling = GREEDY,
        beams: Beams | None = None,
    ) -> list[list[int]]:
        """``generate`` from and to token ids; the stop token is left out.

        Raises:
          ConfigError: an empty prompt, or more tokens than learned positions.
        """
        if not prompts:
            return []
        ids, mask, _ = self._batch(prompts, max_tokens)
        options = {'max_tokens': max_tokens, 'sampling': sampling}
        if beams is not None:
            return beam.search(self._writer, ids, mask, beams=beams, **options).ids()
        return self._writer.generate(ids, mask, **options)

    def _batch(self, prompts: Sequence[Sequence[int]], max_tokens: int):
        batch = padded(prompts)
        longest = max(map(len, prompts))
        positions = self.module.size.positions
        if positions and longest + max_tokens - 1 > positions:
            raise ConfigError(
                f'{longest} tokens and {max_tokens} more do not fit into the {positions} positions '
                f'of {self.folder}.'
            )
        return batch
