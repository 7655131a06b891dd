"""Pengi: a language model that answers prompts about clips.

Deshmukh et al. 2023, arXiv:2305.11834.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from alm_jax.models.clapcap import PrefixMapper, after_prefix
from alm_jax.models.projection import Projection
from alm_jax.models.text.clip_text import ClipText
from alm_jax.models.text.decoder import Decoder
from alm_jax.models.two_tower import unit_norm


class Pengi(nn.Module):
    """The towers of MS-CLAP, a mapper after each, and a decoder with learned positions.

    Parameters: ``audio``, ``audio_projection``, ``audio_mapper``, ``text``, ``text_projection``,
    ``text_mapper``, ``decoder``.

    Attributes:
      audio: encoder (mel_btf) -> {'pooled': [b, d], ...}.
      text: of prompts, with a projection.
      audio_projection, text_projection: of their embeddings.
      audio_mapper, text_mapper: of the projected embeddings.
      decoder: of answers.
      normalise: whether embeddings have unit norm before they are mapped.
    """

    audio: nn.Module
    text: ClipText
    audio_projection: Projection
    text_projection: Projection
    audio_mapper: PrefixMapper
    text_mapper: PrefixMapper
    decoder: Decoder
    normalise: bool = True

    def prefix(self, mel_btf, prompt_ids_bt, prompt_mask_bt=None) -> dict[str, Any]:
        """What stands before an answer: the clip, then the prompt.

        Args:
          mel_btf: [b, t, f], as the encoder takes it.
          prompt_ids_bt: int32 [b, t] of the prompt's own tokenizer; prompt_mask_bt: bool, or None.

        Returns:
          'prefix' [b, p + q, d]; 'audio_embedding' and 'text_embedding' float32 [b, e], projected;
          'audio' and 'text', the encoders' own outputs.
        """
        audio, text = self.audio(mel_btf), self.text(prompt_ids_bt, prompt_mask_bt)
        heard = self.audio_projection(audio['pooled'])
        asked = self.text_projection(text['projected'])
        shown = [unit_norm(x) if self.normalise else x for x in (heard, asked)]
        parts = [self.audio_mapper(shown[0]), self.text_mapper(shown[1])]
        return {
            'prefix': jnp.concatenate(parts, axis=1),
            'audio_embedding': heard,
            'text_embedding': asked,
            'audio': audio,
            'text': text,
        }

    def __call__(
        self, mel_btf, prompt_ids_bt, prompt_mask_bt, token_ids_bt, token_mask_bt=None
    ) -> dict[str, Any]:
        """The logits of answers, int32 [b, n] with their mask or None, after their prefixes.

        Returns:
          What ``prefix`` returns, and as ClapCap's: 'embeddings', 'hidden', 'text_tokens' and
          'logits' float32 [b, p + q + n, vocabulary].
        """
        outputs = self.prefix(mel_btf, prompt_ids_bt, prompt_mask_bt)
        answer = after_prefix(self.decoder, outputs['prefix'], token_ids_bt, token_mask_bt)
        return {**outputs, **answer}
