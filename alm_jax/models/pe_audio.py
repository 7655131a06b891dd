"""PE-Audio (Vyas et al. 2025, https://arxiv.org/abs/2512.19687): audio and text in one space."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.audio.pe_audio import PeAudioEncoder
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.text.modern_bert import ModernBert

BIAS_INIT = -10.0  # SigLIP (Zhai et al. 2023, section 3.2), whose objective it is


class PeAudio(nn.Module):
    """An audio and a text encoder with heads into one space; embeddings have no unit norm.

    Parameters: ``audio``, ``text``, ``audio_head`` and ``text_head`` (``norm``, ``projection``),
    ``logit_scale`` [1], ``logit_bias`` [1].

    Attributes:
      audio, text: the encoders.
      embed_dim: of the space; the text encoder's width in the original.
      dtype: compute dtype of the heads; embeddings are float32.
    """

    audio: PeAudioEncoder
    text: ModernBert
    embed_dim: int = 1024
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.audio_head = _Head(self.embed_dim, self.dtype)
        self.text_head = _Head(self.embed_dim, self.dtype)
        self.logit_scale = self.param('logit_scale', nn.initializers.ones, (1,))
        self.logit_bias = self.param('logit_bias', nn.initializers.constant(BIAS_INIT), (1,))

    def __call__(
        self, waveform_bn, num_samples_b, token_ids_bt, token_mask_bt, train: bool = False
    ):
        """Embeds clips and texts, and compares each with each.

        Args:
          waveform_bn, num_samples_b: see PeAudioEncoder.
          token_ids_bt: int32 [c, t]; token_mask_bt: bool [c, t].
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'audio_embedding' float32 [b, e]; 'text_embedding' float32 [c, e]; 'logits' [b, c];
          'frame_embeddings' [b, t, e] and 'frame_logits' [b, c, t], of every codec frame as in
          transformers' PeAudioFrameLevelModel; 'frame_mask' bool [b, t]; 'audio' and 'text', the
          intermediates of the encoders.
        """
        audio = self.audio(waveform_bn, num_samples_b, train)
        text = self.text(token_ids_bt, token_mask_bt, train)
        clips, frames = self.audio_head(audio['pooled']), self.audio_head(audio['tokens'])
        texts = self.text_head(text['tokens'][:, 0])
        return {
            'audio_embedding': clips,
            'text_embedding': texts,
            'logits': self.compare(clips, texts),
            'frame_embeddings': frames,
            'frame_logits': jnp.swapaxes(self.compare(frames, texts), 1, 2),
            'frame_mask': audio['frame_mask'],
            'audio': audio,
            'text': text,
        }

    def compare(self, audio_be, text_ce):
        """[..., e], [c, e] -> [..., c], the logits that they belong together."""
        logits = jnp.einsum('...e,ce->...c', audio_be, text_ce)
        return logits * self.logit_scale + self.logit_bias

    def embed_audio(self, waveform_bn, num_samples_b=None, train: bool = False):
        """Float32 [b, e]."""
        return self.audio_head(self.audio(waveform_bn, num_samples_b, train)['pooled'])

    def embed_frames(self, waveform_bn, num_samples_b=None, train: bool = False):
        """(float32 [b, t, e], bool [b, t] frames that a clip has)."""
        outputs = self.audio(waveform_bn, num_samples_b, train)
        return self.audio_head(outputs['tokens']), outputs['frame_mask']

    def embed_text(self, token_ids_bt, token_mask_bt, train: bool = False):
        """Float32 [c, e]."""
        return self.text_head(self.text(token_ids_bt, token_mask_bt, train)['tokens'][:, 0])


class _Head(nn.Module):
    """Norm and projection."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        x = LayerNorm(1e-6, name='norm')(x)
        x = Dense(self.features, use_bias=False, dtype=self.dtype, name='projection')(x)
        return x.astype(jnp.float32)
