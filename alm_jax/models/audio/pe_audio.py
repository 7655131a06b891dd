"""The audio encoder of PE-Audio (Vyas et al. 2025, https://arxiv.org/abs/2512.19687).

Vectors of a codec's encoder (DAC), one for every 40 ms at 48 kHz, go through a residual block of
convolutions and a transformer, behind a class token. As transformers' PeAudioEncoder.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.models.audio import dac
from alm_jax.models.layers.conv import Conv
from alm_jax.models.layers.dense import Dense, Embedding
from alm_jax.models.layers.norm import GroupNorm, RmsNorm
from alm_jax.models.layers.rotary import Rope
from alm_jax.models.layers.transformer import transformer_stack


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of the transformer, and the codec before it.

    Attributes:
      kv_heads: None is ``heads``.
      codec_dim: of the codec's vectors after its bottleneck.
      attention_bias: whether the attention's projections have biases.
    """

    codec: dac.Size
    width: int = 1792
    depth: int = 6
    heads: int = 14
    kv_heads: int | None = None
    head_dim: int = 128
    mlp_width: int = 4800
    codec_dim: int = 128
    activation: str = 'silu'
    norm_epsilon: float = 1e-5
    attention_bias: bool = False
    rope: Rope = dataclasses.field(default_factory=lambda: Rope(base=20_000.0))


class PeAudioEncoder(nn.Module):
    """Waveforms in; a vector of every codec frame and one of the clip out.

    As in the original, the codec does not see where a clip ends: its last vectors depend on whether
    zeros stand behind it. All else is masked, so that their number changes nothing. The original
    never trains the codec; freeze ``codec`` and ``bottleneck`` to do the same.

    Parameters: ``codec``, ``bottleneck``, ``codec_projection``, ``class_embedding`` [1, d],
    ``block_1`` and ``block_2`` (``norm`` and ``conv``), ``layers`` (see transformer_stack),
    ``final_norm``, ``output``.

    Attributes:
      size: see Size.
      dropout: rate inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; norms and softmax are float32.
    """

    size: Size
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, waveform_bn, num_samples_b=None, train: bool = False):
        """Encodes clips padded at their ends.

        Args:
          waveform_bn: float32 [b, n], n a multiple of the codec's hop.
          num_samples_b: int [b], those of each clip, zeros behind them whatever is given; None is
            all.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          With t = n / hop: 'codec' [b, t, codec_dim], the codec's vectors; 'embeddings'
          [b, 1 + t, d], input of the first block, class token first; 'hidden' [l, b, 1 + t, d],
          every block's output; 'tokens' [b, t, d]; 'pooled' [b, d], the class token's; 'frame_mask'
          bool [b, t].
        """
        size = self.size
        samples = waveform_bn.shape[1]
        if num_samples_b is None:
            num_samples_b = jnp.full(waveform_bn.shape[0], samples)
        heard = jnp.where(jnp.arange(samples) < num_samples_b[:, None], waveform_bn, 0)
        x = dac.DacEncoder(size.codec, self.dtype, name='codec')(heard[..., None])['latents']
        codec = Dense(size.codec_dim, dtype=self.dtype, name='bottleneck')(x)
        x = Dense(size.width, dtype=self.dtype, name='codec_projection')(codec)
        b, t, d = x.shape
        frame_mask = jnp.arange(t) * size.codec.hop < num_samples_b[:, None]
        first = Embedding(1, d, name='class_embedding')().astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(first, (b, 1, d)), x], axis=1)
        mask = jnp.concatenate([frame_mask[:, :1], frame_mask], axis=1)
        y = _ConvBlock(self.dtype, name='block_1')(x, mask)
        x = x + _ConvBlock(self.dtype, name='block_2')(y, mask)
        embeddings = x
        rope = size.rope.cos_sin(jnp.arange(1 + t)[None], size.head_dim)
        x, hidden = self._stack(train)(x, mask, None, rope)
        x = RmsNorm(size.norm_epsilon, name='final_norm')(x)
        x = Dense(size.width, use_bias=False, dtype=self.dtype, name='output')(x)
        return {
            'codec': codec,
            'embeddings': embeddings,
            'hidden': hidden,
            'tokens': x[:, 1:],
            'pooled': x[:, 0],
            'frame_mask': frame_mask,
        }

    def _stack(self, train):
        size = self.size
        biases = ('query', 'key', 'value', 'out') if size.attention_bias else ()
        attention = {
            'kv_heads': size.kv_heads,
            'head_dim': size.head_dim,
            'biases': biases,
            'qk_norm': True,
            'norm_epsilon': size.norm_epsilon,
        }
        return transformer_stack(
            size.depth,
            remat=self.remat,
            heads=size.heads,
            mlp_width=size.mlp_width,
            norm='rms',
            norm_epsilon=size.norm_epsilon,
            activation=size.activation,
            gated=True,
            mlp_bias=False,
            attention=FrozenDict(attention),
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )


class _ConvBlock(nn.Module):
    """Norm over the clip, SiLU, convolution of three frames."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_btd, mask_bt):
        x = nn.silu(GroupNorm(name='norm')(x_btd, mask_bt))
        return Conv(x.shape[-1], (3,), padding=[(1, 1)], dtype=self.dtype, name='conv')(x)
