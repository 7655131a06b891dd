"""Two towers with one embedding space: the contrastive audio-language model (CLAP)."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.audio.spectrogram_transformer import SpectrogramTransformer
from alm_jax.models.audio.yamnet import YamNet
from alm_jax.models.projection import Projection
from alm_jax.models.text.bert import Bert

AUDIO_ENCODERS = {'spectrogram_transformer': SpectrogramTransformer, 'yamnet': YamNet}
TEXT_ENCODERS = {'bert': Bert}
# CLIP (Radford et al. 2021, section 2.5): initial temperature 0.07, logit scale at most 100.
LOG_SCALE_INIT = math.log(1 / 0.07)
LOG_SCALE_MAX = math.log(100.0)
BIAS_INIT = -10.0  # SigLIP (Zhai et al. 2023, section 3.2); only the sigmoid objective uses it


class TwoTower(nn.Module):
    """An audio and a text encoder with projections to unit vectors of one size.

    Parameters: ``audio``, ``text``, ``audio_projection``, ``text_projection``, ``logit_scale`` []
    (the log of it) and ``logit_bias`` [].

    Attributes:
      audio: encoder (mel_btf, num_frames_b, train) -> {'pooled': [b, d], ...}.
      text: encoder (token_ids_bt, token_mask_bt, train) -> {'pooled': [b, d], ...}.
      embed_dim: size of the shared embedding.
      projection_layers: 1 is linear, 2 is MS-CLAP's residual MLP.
      dropout: rate in the projections.
      dtype: compute dtype of the projections; embeddings are float32.
    """

    audio: nn.Module
    text: nn.Module
    embed_dim: int = 512
    projection_layers: int = 1
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    def setup(self):
        head = (self.embed_dim, self.projection_layers, self.dropout, self.dtype)
        self.audio_projection = Projection(*head)
        self.text_projection = Projection(*head)
        self.logit_scale = self.param('logit_scale', nn.initializers.constant(LOG_SCALE_INIT), ())
        self.logit_bias = self.param('logit_bias', nn.initializers.constant(BIAS_INIT), ())

    def __call__(self, mel_btf, num_frames_b, token_ids_bt, token_mask_bt, train: bool = False):
        """Embeds paired clips and texts.

        Args:
          mel_btf: [b, t, f] log-mel; num_frames_b: int [b].
          token_ids_bt: int32 [b, t]; token_mask_bt: bool [b, t].
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'audio_embedding' and 'text_embedding', float32 [b, embed_dim] of unit norm;
          'logit_scale' (at most 100) and 'logit_bias', float32 [].
        """
        return {
            'audio_embedding': self.embed_audio(mel_btf, num_frames_b, train),
            'text_embedding': self.embed_text(token_ids_bt, token_mask_bt, train),
            'logit_scale': jnp.exp(ceiling(self.logit_scale, LOG_SCALE_MAX)),
            'logit_bias': self.logit_bias,
        }

    def embed_audio(self, mel_btf, num_frames_b, train: bool = False):
        """[b, t, f], int [b] -> float32 [b, embed_dim] of unit norm."""
        pooled = self.audio(mel_btf, num_frames_b, train)['pooled']
        return unit_norm(self.audio_projection(pooled, train))

    def embed_text(self, token_ids_bt, token_mask_bt, train: bool = False):
        """int32 [b, t], bool [b, t] -> float32 [b, embed_dim] of unit norm."""
        pooled = self.text(token_ids_bt, token_mask_bt, train)['pooled']
        return unit_norm(self.text_projection(pooled, train))


def unit_norm(x):
    """Divides by the Euclidean norm over the last axis; a zero vector stays zero."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


@jax.custom_vjp
def ceiling(x, maximum):
    """min(x, maximum) whose gradient still lets a value above the maximum come down again.

    A plain minimum has no gradient up there, so a parameter that once stepped over it would stay.
    """
    return jnp.minimum(x, maximum)


def _ceiling_backward(above, gradient):
    # Descent subtracts the gradient, so a positive one points back down.
    return jnp.where(above & (gradient < 0), 0.0, gradient), None


ceiling.defvjp(lambda x, maximum: (jnp.minimum(x, maximum), x >= maximum), _ceiling_backward)


def build_two_tower(config_model: Mapping[str, Any], dtype: DTypeLike = jnp.float32) -> TwoTower:
    """The model that ``config.model`` describes.

    Args:
      config_model: keys audio and text ({'name': encoder, **its attributes}), embed_dim,
        projection_layers, dropout; 'family' is ignored.
      dtype: compute dtype.

    Raises:
      ConfigError: for an unknown encoder or option, naming the nearest valid one.
    """

    def encoder(part, table):
        options = dict(config_model[part])
        where = f'model.{part}'
        kind = config_lib.choose(table, options.get('name', ''), where=f'{where}.name')
        return config_lib.call_with(kind, options, where=where, dtype=dtype)

    heads = {key: config_model[key] for key in ('embed_dim', 'projection_layers', 'dropout')}
    return TwoTower(
        audio=encoder('audio', AUDIO_ENCODERS),
        text=encoder('text', TEXT_ENCODERS),
        dtype=dtype,
        **heads,
    )
