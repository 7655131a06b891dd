"""Whisper: speech in, its text out (Radford et al. 2022, https://arxiv.org/abs/2212.04356)."""

from typing import Any

from flax import linen as nn

from alm_jax.models.audio.whisper import WhisperEncoder
from alm_jax.models.layers import kv_cache
from alm_jax.models.text.whisper_decoder import WhisperDecoder


class Whisper(nn.Module):
    """An encoder and the decoder that attends to its output.

    Parameters: ``encoder``, ``decoder``.
    """

    encoder: WhisperEncoder
    decoder: WhisperDecoder

    def __call__(
        self, mel_btf, token_ids_bt, token_mask_bt=None, num_frames_b=None, train: bool = False
    ) -> dict[str, Any]:
        """Encodes windows and reads texts beside them.

        Args:
          mel_btf: [b, t, f] log-mel.
          token_ids_bt: int32 [b, n]; token_mask_bt: bool [b, n] or None for all.
          num_frames_b: int [b] or None for all; without effect unless the encoder is ``masked``.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'encoder' and 'decoder': their outputs; 'logits' float32 [b, n, vocabulary].
        """
        encoder = self.encode(mel_btf, num_frames_b, train)
        mask = encoder['frame_mask'] if self.encoder.masked else None
        decoder = self.decoder(token_ids_bt, token_mask_bt, encoder['tokens'], mask, train=train)
        return {'encoder': encoder, 'decoder': decoder, 'logits': decoder['logits']}

    def encode(self, mel_btf, num_frames_b=None, train: bool = False) -> dict[str, Any]:
        """The encoder alone, see WhisperEncoder."""
        return self.encoder(mel_btf, num_frames_b, train)

    def decode(self, token_ids_bt, token_mask_bt=None, memory_bsd=None, **options: Any):
        """The decoder alone, see WhisperDecoder."""
        return self.decoder(token_ids_bt, token_mask_bt, memory_bsd, **options)

    def empty_cache(self, batch: int, length: int) -> kv_cache.Cache:
        """Of the decoder, for ``length`` tokens of prompt and text."""
        return self.decoder.empty_cache(batch, length)

    def one_by_one(self, params):
        """(module, parameters) whose decoder has no stack, see WhisperDecoder."""
        decoder, decoder_params = self.decoder.one_by_one(params['decoder'])
        return self.clone(decoder=decoder), {**params, 'decoder': decoder_params}
