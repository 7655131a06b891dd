"""MusicGen: a T5 encoder of texts, a language model of audio codes, and EnCodec."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from alm_jax.models.audio.encodec import Encodec
from alm_jax.models.layers.dense import Dense
from alm_jax.models.text.musicgen import MusicgenDecoder
from alm_jax.models.text.t5 import T5Encoder


class Musicgen(nn.Module):
    """The three, and between text encoder and decoder a Dense ``projection`` if widths differ.

    Attributes:
      text_encoder, decoder, audio_encoder: the parts, which are also their parameters' names.
    """

    text_encoder: T5Encoder
    decoder: MusicgenDecoder
    audio_encoder: Encodec

    def setup(self):
        if self.text_encoder.size.width != self.decoder.size.width:
            self.projection = Dense(self.decoder.size.width)

    def __call__(
        self, token_ids_bt, token_mask_bt, codes_bqt, mask_bt=None, *, train: bool = False
    ) -> dict[str, Any]:
        """Reads codes beside texts.

        Args:
          token_ids_bt, token_mask_bt: the texts, int32 and bool [b, s].
          codes_bqt: int32 [b, codebooks, t], delayed already.
          mask_bt: bool [b, t]; None is all.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'text_encoder': see T5Stack; 'memory' [b, s, d], what the decoder attends to; 'decoder':
          see MusicgenDecoder; 'logits' float32 [b, codebooks, t, rows].
        """
        encoded = self.encode(token_ids_bt, token_mask_bt, train=train)
        decoded = self.decoder(codes_bqt, mask_bt, encoded['memory'], token_mask_bt, train=train)
        if self.is_initializing():
            self.waveform(jnp.zeros_like(codes_bqt))
            size = self.audio_encoder.size
            self.audio_encoder.encode(jnp.zeros((1, size.hop, size.halves.channels)))
        return {**encoded, 'decoder': decoded, 'logits': decoded.pop('logits')}

    def encode(self, token_ids_bt, token_mask_bt, *, train: bool = False) -> dict[str, Any]:
        """'text_encoder' and 'memory', zeros at padding, see ``__call__``."""
        encoded = self.text_encoder(token_ids_bt, token_mask_bt, train=train)
        memory = encoded['tokens']
        if self.text_encoder.size.width != self.decoder.size.width:
            memory = self.projection(memory)
        memory = jnp.where(token_mask_bt[..., None], memory, 0)
        return {'text_encoder': encoded, 'memory': memory}

    def waveform(self, codes_bqt):
        """float32 [b, n, channels] of codes that are not delayed."""
        channels = self.decoder.size.channels
        if channels == 1:
            return self.audio_encoder.decode(codes_bqt)['waveform']
        sides = [
            self.audio_encoder.decode(codes_bqt[:, side::channels])['waveform']
            for side in range(channels)
        ]
        return jnp.concatenate(sides, axis=-1)
