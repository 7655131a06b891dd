"""Mimi, the codec of Moshi (Defossez et al. 2024, https://arxiv.org/abs/2410.00037)."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.models.audio import seanet
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.padded_conv import PaddedConv, PaddedConvTranspose
from alm_jax.models.layers.residual_vq import ResidualVectorQuantizer
from alm_jax.models.layers.rotary import Rope
from alm_jax.models.layers.transformer import transformer_stack

HALVES = seanet.Size(
    512,
    filters=64,
    ratios=(8, 6, 5, 4),
    last_kernel=3,
    shortcut=False,
    lstm_layers=0,
    pad_mode='constant',
    norm='none',
)


@dataclasses.dataclass(frozen=True)
class Size:
    """Convolutional halves, the transformers between, and codebooks.

    Attributes:
      halves: of encoder and decoder.
      depth, heads, kv_heads, head_dim, mlp_width, activation, norm_epsilon: of both transformers.
      window: latents that a latent attends to, its own included.
      rope: rotation of queries and keys.
      attention_bias: whether attention has biases.
      layer_scale: start of the scales of what layers add.
      stride: encoder's positions a code.
      upsample_groups: of the transposed convolution back.
      codebooks: there are, the semantic ones included.
      semantic: codebooks that quantise the latents for themselves, beside the others' residuals.
      rows: codes of each.
      code_width: of a code.
    """

    halves: seanet.Size = HALVES
    depth: int = 8
    heads: int = 8
    kv_heads: int = 8
    head_dim: int = 64
    mlp_width: int = 2048
    activation: str = 'gelu'
    norm_epsilon: float = 1e-5
    window: int = 250
    rope: Rope = dataclasses.field(default_factory=Rope)
    attention_bias: bool = False
    layer_scale: float = 0.01
    stride: int = 2
    upsample_groups: int = 512
    codebooks: int = 32
    semantic: int = 1
    rows: int = 2048
    code_width: int = 256

    @property
    def hop(self) -> int:
        """Samples a code."""
        return math.prod(self.halves.ratios) * self.stride


class CodecTransformer(nn.Module):
    """A causal transformer ``layers`` with rotary positions and a window."""

    size: Size
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, d] -> 'hidden' [l, b, t, d], every block's output; 'tokens', the last one's."""
        size = self.size
        attention = {
            'kv_heads': size.kv_heads,
            'head_dim': size.head_dim,
            'causal': True,
            'window': size.window,
        }
        if not size.attention_bias:
            attention['biases'] = ()
        positions = jnp.arange(x_btd.shape[1])[None]
        tokens, hidden = transformer_stack(
            size.depth,
            heads=size.heads,
            mlp_width=size.mlp_width,
            norm_epsilon=size.norm_epsilon,
            activation=size.activation,
            mlp_bias=False,
            layer_scale=size.layer_scale,
            attention=FrozenDict(attention),
            dtype=self.dtype,
        )(x_btd.astype(self.dtype), None, None, size.rope.cos_sin(positions, size.head_dim))
        return {'hidden': hidden, 'tokens': tokens}


class ProjectedQuantizer(nn.Module):
    """``codebooks`` between Dense ``in_proj`` and ``out_proj``, in float32.

    Attributes:
      count: of codebooks.
      rows, width: of each.
      features: of what is quantised; without projections where it is ``width``.
    """

    count: int
    rows: int
    width: int
    features: int

    def setup(self):
        self.codebooks = ResidualVectorQuantizer(self.count, self.rows, self.width, sums=True)
        self.projected = self.features != self.width
        if self.projected:
            self.in_proj = Dense(self.width, use_bias=False)
            self.out_proj = Dense(self.features, use_bias=False)

    def __call__(self, x_btd, codebooks: int | None = None):
        """(codes int32 [b, q, t], what they stand for [b, t, d])."""
        x = self.in_proj(x_btd) if self.projected else x_btd
        codes, quantised = self.codebooks(x, codebooks)
        return codes, self.out_proj(quantised) if self.projected else quantised

    def decode(self, codes_bqt):
        """What codes of the first codebooks stand for: [b, t, d]."""
        quantised = self.codebooks.decode(codes_bqt)
        return self.out_proj(quantised) if self.projected else quantised


class SplitQuantizer(nn.Module):
    """``semantic`` and ``acoustic``: quantisers of the same latents, whose results are added."""

    size: Size

    def setup(self):
        size = self.size
        of = (size.rows, size.code_width, size.halves.width)
        self.semantic = ProjectedQuantizer(size.semantic, *of)
        self.acoustic = ProjectedQuantizer(size.codebooks - size.semantic, *of)

    def __call__(self, x_btd, codebooks: int | None = None):
        """(codes int32 [b, q, t], the semantic ones first, what they stand for [b, t, d])."""
        codes, quantised = self.semantic(x_btd)
        others = (self.size.codebooks if codebooks is None else codebooks) - self.size.semantic
        if others < 0:
            raise ValueError(f'{codebooks} codebooks; {self.size.semantic} are semantic.')
        if not others:
            return codes, quantised
        more, rest = self.acoustic(x_btd, others)
        return jnp.concatenate([codes, more], axis=1), quantised + rest

    def decode(self, codes_bqt):
        """What codes of the first codebooks stand for: [b, t, d]."""
        count = self.size.semantic
        quantised = self.semantic.decode(codes_bqt[:, :count])
        if codes_bqt.shape[1] > count:
            quantised = quantised + self.acoustic.decode(codes_bqt[:, count:])
        return quantised


class Mimi(nn.Module):
    """Waveforms to codes and back.

    Parameters: ``encoder``, ``encoder_transformer``, ``downsample``, ``quantizer``, ``upsample``,
    ``decoder_transformer``, ``decoder``.

    Everything is causal, so a clip's codes are the same in any bucket but for the last one of a
    clip that is not a multiple of ``hop``, as published.

    Attributes:
      size: see Size.
      dtype: compute dtype; norms, softmax, quantisation and the waveform are float32.
    """

    size: Size = dataclasses.field(default_factory=Size)
    dtype: DTypeLike = jnp.float32

    def setup(self):
        size, halves = self.size, self.size.halves
        common = {
            'causal': halves.causal,
            'norm': 'none',
            'use_bias': False,
            'dtype': self.dtype,
        }
        self.encoder = seanet.SeanetEncoder(halves, self.dtype)
        self.encoder_transformer = CodecTransformer(size, self.dtype)
        self.downsample = PaddedConv(
            halves.width, 2 * size.stride, size.stride, pad_mode='edge', **common
        )
        self.quantizer = SplitQuantizer(size)
        self.upsample = PaddedConvTranspose(
            halves.width,
            2 * size.stride,
            size.stride,
            groups=size.upsample_groups,
            trim_right_ratio=halves.trim_right_ratio,
            **common,
        )
        self.decoder_transformer = CodecTransformer(size, self.dtype)
        self.decoder = seanet.SeanetDecoder(halves, self.dtype)

    def __call__(self, waveform_bnc, num_samples_b=None, *, codebooks: int | None = None):
        """``encode`` and ``decode``; 'waveform' is cut to the n samples given."""
        outputs = self.encode(waveform_bnc, num_samples_b, codebooks=codebooks)
        decoded = self.decode(outputs['codes'])
        waveform = decoded['waveform'][:, : waveform_bnc.shape[1]]
        return outputs | decoded | {'waveform': waveform}

    def encode(self, waveform_bnc, num_samples_b=None, *, codebooks: int | None = None):
        """Codes of waveforms.

        Args:
          waveform_bnc: float [b, n, channels], or [b, n] of mono models.
          num_samples_b: int [b]; what stands behind a clip's end is heard as zeros. None is n.
          codebooks: how many of them, the first ones; None is all.

        Returns:
          'encoder', the intermediates of SeanetEncoder; 'encoder_transformer', those of
          CodecTransformer; 'latents' [b, t, d]; 'codes' int32 [b, q, t]; 'quantised' float32
          [b, t, d]; 'frame_mask' bool [b, t], the codes that begin within a clip.

        Raises:
          ValueError: fewer codebooks than there are semantic ones.
        """
        x = waveform_bnc[..., None] if waveform_bnc.ndim == 2 else waveform_bnc
        if num_samples_b is None:
            num_samples_b = jnp.full(x.shape[0], x.shape[1])
        own = jnp.arange(x.shape[1]) < num_samples_b[:, None]
        outputs: dict[str, Any] = {}
        encoded = outputs['encoder'] = self.encoder(
            jnp.where(own[..., None], x, 0).astype(self.dtype)
        )
        seen = outputs['encoder_transformer'] = self.encoder_transformer(encoded['latents'])
        outputs['latents'] = self.downsample(seen['tokens'])
        latents = outputs['latents'].astype(jnp.float32)
        outputs['codes'], outputs['quantised'] = self.quantizer(latents, codebooks)
        frames = jnp.arange(outputs['codes'].shape[-1]) * self.size.hop
        return outputs | {'frame_mask': frames < num_samples_b[:, None]}

    def decode(self, codes_bqt):
        """Waveforms of codes.

        Args:
          codes_bqt: int32 [b, q, t], q at least the semantic and at most all codebooks.

        Returns:
          'quantised' float32 [b, t, d]; 'upsampled' [b, t * stride, d]; 'decoder_transformer' and
          'decoder', the intermediates of CodecTransformer and SeanetDecoder; 'waveform' float32
          [b, t * hop, channels].
        """
        quantised = self.quantizer.decode(codes_bqt)
        upsampled = self.upsample(quantised.astype(self.dtype))
        seen = self.decoder_transformer(upsampled)
        decoded = self.decoder(seen['tokens'])
        return {
            'quantised': quantised,
            'upsampled': upsampled,
            'decoder_transformer': seen,
            'decoder': decoded,
            'waveform': decoded['waveform'],
        }
