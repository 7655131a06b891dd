"""Two towers with one embedding space: the contrastive audio-language model (CLAP)."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.audio.beats import Beats
from alm_jax.models.audio.cnn14 import Cnn14
from alm_jax.models.audio.htsat import HtsAt
from alm_jax.models.audio.spectrogram_transformer import SpectrogramTransformer
from alm_jax.models.audio.whisper import WhisperEncoder
from alm_jax.models.audio.yamnet import YamNet
from alm_jax.models.projection import Projection
from alm_jax.models.text.bert import Bert

AUDIO_ENCODERS = {
    'beats': Beats,
    'cnn14': Cnn14,
    'htsat': HtsAt,
    'spectrogram_transformer': SpectrogramTransformer,
    'whisper': WhisperEncoder,
    'yamnet': YamNet,
}
TEXT_ENCODERS = {'bert': Bert}
OTHER = {'audio': 'text', 'text': 'audio'}
# CLIP (Radford et al. 2021, section 2.5): initial temperature 0.07, logit scale at most 100.
LOG_SCALE_INIT = math.log(1 / 0.07)
LOG_SCALE_MAX = math.log(100.0)
BIAS_INIT = -10.0  # SigLIP (Zhai et al. 2023, section 3.2); only the sigmoid objective uses it


class TwoTower(nn.Module):
    """An audio and a text encoder with projections to unit vectors of one size.

    Parameters: ``audio``, ``text``, ``audio_projection``, ``text_projection``, ``logit_scale`` []
    (the log of it), ``logit_bias`` [] and, with ``two_scales``, ``text_logit_scale`` [].

    Attributes:
      audio: encoder (mel_btf, num_frames_b, train) -> {'pooled': [b, d], ...}.
      text: encoder (token_ids_bt, token_mask_bt, train) -> {'pooled': [b, d], ...}.
      embed_dim: size of the shared embedding.
      projection: kind of the projections, see Projection.
      dropout: rate in the projections.
      projection_epsilon: of the norms in 'residual' projections; 1e-5 in MS-CLAP.
      logit_bias_init: where the bias of the sigmoid objective starts; None is no such parameter.
      two_scales: whether text to audio has a scale of its own, as in LAION-CLAP.
      dtype: compute dtype of the projections; embeddings are float32.
    """

    audio: nn.Module
    text: nn.Module
    embed_dim: int = 512
    projection: str = 'linear'
    dropout: float = 0.0
    projection_epsilon: float = 1e-6
    logit_bias_init: float | None = BIAS_INIT
    two_scales: bool = False
    dtype: DTypeLike = jnp.float32

    def setup(self):
        head = (self.embed_dim, self.projection, self.dropout)
        options = {'norm_epsilon': self.projection_epsilon, 'dtype': self.dtype}
        self.audio_projection = Projection(*head, **options)
        self.text_projection = Projection(*head, **options)

        def scalar(name, value):
            return self.param(name, nn.initializers.constant(value), ())

        self.logit_scale = scalar('logit_scale', LOG_SCALE_INIT)
        if self.two_scales:
            self.text_logit_scale = scalar('text_logit_scale', LOG_SCALE_INIT)
        if self.logit_bias_init is not None:
            self.logit_bias = scalar('logit_bias', self.logit_bias_init)

    def __call__(self, mel_btf, num_frames_b, token_ids_bt, token_mask_bt, train: bool = False):
        """Embeds paired clips and texts.

        Args:
          mel_btf: [b, t, f] log-mel; num_frames_b: int [b].
          token_ids_bt: int32 [b, t]; token_mask_bt: bool [b, t].
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'audio_embedding' and 'text_embedding', float32 [b, embed_dim] of unit norm;
          'logit_scale' (at most 100), 'logit_bias' and 'text_logit_scale', float32 [], as far as
          the model has them.
        """
        return {
            'audio_embedding': self.embed_audio(mel_btf, num_frames_b, train),
            'text_embedding': self.embed_text(token_ids_bt, token_mask_bt, train),
            **self.scales(),
        }

    def scales(self):
        """What the objective needs beside the embeddings: the scalars of a call."""
        outputs = {'logit_scale': jnp.exp(ceiling(self.logit_scale, LOG_SCALE_MAX))}
        if self.two_scales:
            outputs['text_logit_scale'] = jnp.exp(ceiling(self.text_logit_scale, LOG_SCALE_MAX))
        if self.logit_bias_init is not None:
            outputs['logit_bias'] = self.logit_bias
        return outputs

    def embed_audio(self, mel_btf, num_frames_b, train: bool = False, **options):
        """[b, t, f], int [b] -> float32 [b, embed_dim] of unit norm; ``options`` of the encoder."""
        pooled = self.audio(mel_btf, num_frames_b, train, **options)['pooled']
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


def build_two_tower(
    config_model: Mapping[str, Any], dtype: DTypeLike = jnp.float32, remat: str = 'none'
) -> TwoTower:
    """The model that ``config.model`` describes.

    Args:
      config_model: keys audio and text ({'name': encoder, **its attributes}), embed_dim,
        projection, dropout; 'family' is ignored.
      dtype: compute dtype.
      remat: of the encoders that do not set their own, see ``transformer_stack``.

    Raises:
      ConfigError: for an unknown encoder or option, naming the nearest valid one; ``remat`` for an
        encoder that has none, as convolutional ones.
    """

    def encoder(part, table):
        options = dict(config_model[part])
        where = f'model.{part}'
        kind = config_lib.choose(table, options.get('name', ''), where=f'{where}.name')
        if hasattr(kind, 'remat'):
            options.setdefault('remat', remat)
        elif remat != 'none':
            raise config_lib.ConfigError(
                f'config.remat is {remat!r}, but the encoder {options["name"]!r} of config.{where} '
                "recomputes nothing. Set config.remat to 'none', and for the other tower "
                f'config.model.{OTHER[part]}.remat to {remat!r}.'
            )
        return config_lib.call_with(kind, options, where=where, dtype=dtype)

    heads = {key: config_model[key] for key in ('embed_dim', 'projection', 'dropout')}
    return TwoTower(
        audio=encoder('audio', AUDIO_ENCODERS),
        text=encoder('text', TEXT_ENCODERS),
        dtype=dtype,
        **heads,
    )
