"""wav2vec 2.0, HuBERT and WavLM: encoders of waveforms.

Baevski et al. 2020, https://arxiv.org/abs/2006.11477; Hsu et al. 2021,
https://arxiv.org/abs/2106.07447; Chen et al. 2021, https://arxiv.org/abs/2110.13900.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.audio.feature_encoder import FeatureEncoder, min_samples, num_frames
from alm_jax.models.layers import windows
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.positional_conv import PositionalConv
from alm_jax.models.layers.relative_bias import RelativeBias
from alm_jax.models.layers.transformer import transformer_stack


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of the encoder, and what its kin differ in.

    Attributes:
      mlp_width: None is four times the width.
      conv_widths, conv_sizes, conv_strides: of the feature encoder; by default a vector of 25 ms
        every 20 ms at 16 kHz.
      conv_norm, conv_bias, conv_activation: see FeatureEncoder.
      projection_norm: whether its vectors are normalised before they are projected.
      position_size, position_groups, position_norm: of PositionalConv; its norm is 'weight' or
        'batch'.
      pre_norm: norms before attention and MLP and one at the end, not after and one at the start.
      buckets, max_distance: of WavLM's gated biases by distance; no bucket is no bias.
      mask_embedding: whether there is a vector that stands for masked ones.
      vocabulary: tokens of the CTC head; None is no head.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int | None = None
    conv_widths: tuple[int, ...] = (512,) * 7
    conv_sizes: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_norm: str = 'group'
    conv_bias: bool = False
    conv_activation: str = 'gelu'
    projection_norm: bool = True
    position_size: int = 128
    position_groups: int = 16
    position_norm: str = 'weight'
    pre_norm: bool = False
    norm_epsilon: float = 1e-5
    activation: str = 'gelu'
    buckets: int = 0
    max_distance: int = 800
    mask_embedding: bool = True
    vocabulary: int | None = None

    @property
    def min_samples(self) -> int:
        """Of the shortest waveform."""
        return min_samples(self.conv_sizes, self.conv_strides)


_LARGE = Size(1024, 24, 16, conv_norm='layer', conv_bias=True, pre_norm=True)
VARIANTS = {
    'mu': Size(64, 2, 2, conv_widths=(32,) * 7, position_size=16, position_groups=4),
    'base': Size(768, 12, 12),  # wav2vec2-base, hubert-base-ls960
    'large': Size(1024, 24, 16),  # wav2vec2-large
    'large_lv60': _LARGE,  # wav2vec2-large-lv60, wav2vec2-xls-r-300m, hubert-large-ll60k
    'xlarge': dataclasses.replace(_LARGE, width=1280, depth=48),  # hubert-xlarge-ll60k
    'wavlm_base': Size(768, 12, 12, buckets=320),
    'wavlm_large': dataclasses.replace(_LARGE, conv_bias=False, buckets=320),
}


class Wav2Vec2(nn.Module):
    """Waveform in, one vector every 20 ms and their mean out; with a head, scores of CTC.

    A clip's vectors are those of the clip alone, whatever padding is behind it, but for the sizes
    with ``conv_norm`` 'group': their norm counts the padding, as the original's does, unless
    ``clip_alone``. The original of these sizes was trained and is run without any mask, so
    that clips also attend to the padding; ``hide_padding=False`` does that.

    The original's LayerDrop and random masks (SpecAugment) are of its training and not here;
    ``masked_bt`` says which vectors to mask.

    Parameters: ``feature_encoder``, ``projection_norm``, ``projection``, ``mask_embedding`` [d],
    ``positions``, ``embedding_norm`` or, with ``pre_norm``, ``final_norm``, ``relative_bias``,
    ``layers`` (see transformer_stack), ``head``; those that the size has.

    Attributes:
      variant: a key of VARIANTS, or a Size.
      clip_alone: whether a clip's vectors are those of the clip alone also where the original's
        are not.
      dropout: rate after the positions and inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; norms, softmax and pooling are float32.
    """

    variant: str | Size = 'base'
    clip_alone: bool = False
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    variants: ClassVar[Mapping[str, Size]] = VARIANTS

    @nn.compact
    def __call__(
        self, waveform_bn, num_samples_b=None, hide_padding=True, masked_bt=None, train=False
    ):
        """Encodes clips.

        Args:
          waveform_bn: float32 [b, n], 16 kHz; each clip of mean 0 and variance 1 if the model's
            extractor makes them so.
          num_samples_b: int [b], those that belong to each clip; None is all.
          hide_padding: bool, may be traced; False is attention, and positions, over the padding
            too, and the lengths only say what 'pooled' is the mean of.
          masked_bt: bool [b, t], vectors that ``mask_embedding`` replaces.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'tokens' [b, t, d], after the last norm; 'frame_mask' bool [b, t], those of the clip;
          'pooled' float32 [b, d], their mean; 'features' [b, t, c], what is projected;
          'embeddings' [b, t, d], input of the first block; 'hidden' [l, b, t, d], every block's
          output; with a head 'logits' float32 [b, t, v].

        Raises:
          ConfigError: for an unknown variant.
          ValueError: fewer samples than one vector is made of; ``masked_bt`` without the vector
            for it.
        """
        size = self.variant
        if not isinstance(size, Size):
            size = config_lib.choose(self.variants, size, where='model.audio.variant')
        if waveform_bn.shape[1] < size.min_samples:
            raise ValueError(f'{waveform_bn.shape[1]} samples; at least {size.min_samples}.')
        if masked_bt is not None and not size.mask_embedding:
            raise ValueError('masked_bt: the size has no mask_embedding.')
        if num_samples_b is None:
            num_samples_b = jnp.full(waveform_bn.shape[:1], waveform_bn.shape[1])
        outputs, x, seen_bt = self._stem(size, waveform_bn, num_samples_b, hide_padding, masked_bt)
        x = self._positions(size, x)
        x = outputs['embeddings'] = nn.Dropout(self.dropout, deterministic=not train)(x)
        x, outputs['hidden'] = self._blocks(size, x, seen_bt, train)
        if size.pre_norm:
            x = LayerNorm(size.norm_epsilon, name='final_norm')(x)
        outputs['tokens'] = x
        outputs['pooled'] = windows.masked_mean(x, outputs['frame_mask'])
        if size.vocabulary is not None:
            head = Dense(size.vocabulary, dtype=self.dtype, name='head')
            outputs['logits'] = head(x).astype(jnp.float32)
        return outputs

    def _stem(self, size, waveform_bn, num_samples_b, hide_padding, masked_bt):
        """({'features', 'frame_mask'}, projected features [b, t, d], what is attended to)."""
        x = FeatureEncoder(
            size.conv_widths,
            size.conv_sizes,
            size.conv_strides,
            size.conv_norm,
            self.clip_alone,
            size.conv_bias,
            size.conv_activation,
            self.dtype,
            name='feature_encoder',
        )(waveform_bn, num_samples_b)
        if size.projection_norm:
            x = LayerNorm(size.norm_epsilon, name='projection_norm')(x)
        frames_b = num_frames(num_samples_b, size.conv_sizes, size.conv_strides)
        frame_mask = jnp.arange(x.shape[1]) < frames_b[:, None]
        outputs = {'features': x, 'frame_mask': frame_mask}
        x = Dense(size.width, dtype=self.dtype, name='projection')(x)
        if size.mask_embedding:
            start = nn.initializers.uniform(1.0)
            masked = self.param('mask_embedding', start, (size.width,)).astype(self.dtype)
            x = x if masked_bt is None else jnp.where(masked_bt[..., None], masked, x)
        seen_bt = frame_mask | ~jnp.asarray(hide_padding)
        return outputs, jnp.where(seen_bt[..., None], x, 0), seen_bt

    def _positions(self, size, x):
        """The input of the blocks."""
        x = x + PositionalConv(
            size.position_size,
            size.position_groups,
            size.conv_activation,
            batch_norm=size.position_norm == 'batch',
            dtype=self.dtype,
            name='positions',
        )(x)
        return x if size.pre_norm else LayerNorm(size.norm_epsilon, name='embedding_norm')(x)

    def _blocks(self, size, x, seen_bt, train):
        """The blocks' last output and all of them."""
        attention, bias = FrozenDict(), None
        if size.buckets:
            attention = FrozenDict(bias_gate='input')
            places = jnp.arange(x.shape[1])[None]
            bias = RelativeBias(size.heads, size.buckets, size.max_distance, name='relative_bias')(
                places, places
            )
        return transformer_stack(
            size.depth,
            remat=self.remat,
            heads=size.heads,
            mlp_width=size.mlp_width or 4 * size.width,
            post_norm=not size.pre_norm,
            norm_epsilon=size.norm_epsilon,
            activation=size.activation,
            attention=attention,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )(x, seen_bt, bias)
