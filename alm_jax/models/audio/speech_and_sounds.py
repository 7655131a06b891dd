"""Whisper's and BEATs' encoders side by side (SALMONN, Tang et al. 2023, arXiv:2310.13289)."""

import jax.numpy as jnp
from flax import linen as nn

from alm_jax.models.audio.beats import Beats
from alm_jax.models.audio.whisper import WhisperEncoder
from alm_jax.models.layers.norm import LayerNorm


class SpeechAndSounds(nn.Module):
    """Both encoders' vectors, one pair every 20 ms, after a norm each.

    BEATs has eight vectors for 160 ms, its bands, which stand one after the other as if they were
    steps of time. Where it has none (behind a clip's end, while Whisper hears 30 s) stand zeros.

    Parameters: ``speech``, ``sounds``, ``speech_norm``, ``sounds_norm``.

    Attributes:
      speech: without masks, as published.
      sounds: without classes.
    """

    speech: WhisperEncoder
    sounds: Beats

    masked = False  # every vector counts

    @nn.compact
    def __call__(self, features_btf, num_frames_b, train: bool = False):
        """Encodes windows of 30 s.

        Args:
          features_btf: [b, t, f], the log-mel of Whisper's front end, then BEATs' fbank, both at
            100 frames a second.
          num_frames_b: int [b], frames of the fbank that a clip has.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          With t' = t / 2: 'tokens' [b, t', d + e]; 'frame_mask' bool [b, t'], all True; 'speech'
          and 'sounds', the encoders' own outputs.
        """
        bins = self.speech.variant.mel_bins
        speech = self.speech(features_btf[..., :bins], None, train)
        sounds = self.sounds(features_btf[..., bins:], num_frames_b, train)
        x = LayerNorm(1e-5, name='speech_norm')(speech['tokens'])
        y = LayerNorm(1e-5, name='sounds_norm')(sounds['tokens'])
        y = jnp.where(sounds['token_mask'][..., None], y, 0)[:, : x.shape[1]]
        y = jnp.pad(y, ((0, 0), (0, x.shape[1] - y.shape[1]), (0, 0)))
        tokens = jnp.concatenate([x, y.astype(x.dtype)], axis=-1)
        mask = jnp.ones(tokens.shape[:2], bool)
        return {'tokens': tokens, 'frame_mask': mask, 'speech': speech, 'sounds': sounds}

    def num_tokens(self, num_frames):
        """Of a window, whatever it holds: an int or an array."""
        return num_frames * 0 + self.speech.variant.positions
