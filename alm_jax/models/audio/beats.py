"""BEATs, a transformer over patches of a fbank (Chen et al. 2022, arXiv:2212.09058).

The audio encoder of SALMONN beside Whisper, as speechbrain's BEATs computes it.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.audio.presets import PRESETS
from alm_jax.models.layers import windows
from alm_jax.models.layers.conv import Conv
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.positional_conv import PositionalConv
from alm_jax.models.layers.relative_bias import RelativeBias
from alm_jax.models.layers.transformer import transformer_stack

_FRONT_END = PRESETS['beats']
SILENCE = (math.log(_FRONT_END.floor) - _FRONT_END.mean) / _FRONT_END.scale


@dataclasses.dataclass(frozen=True)
class Size:
    """Shape of the encoder.

    Attributes:
      mlp_width: None is four times the width.
      embedding: size of a patch's embedding before it is projected to the width.
      mel_bins: of the input.
      patch: frames and bins of a patch; it is also the stride.
      patch_bias: whether the patch embedding has a bias.
      position_size, position_groups: of the positional convolution.
      buckets, max_distance: of the relative position bias; 0 buckets are none.
      bias_gate: whether each query scales its bias.
      deep_norm: whether residuals are scaled by (2 * depth) ** 0.25.
      classes: of the tags of a fine-tuned model; None has no tags.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int | None = None
    embedding: int = 512
    mel_bins: int = 128
    patch: int = 16
    patch_bias: bool = False
    position_size: int = 128
    position_groups: int = 16
    buckets: int = 320
    max_distance: int = 800
    bias_gate: bool = True
    deep_norm: bool = True
    activation: str = 'gelu'
    classes: int | None = None


VARIANTS = {
    'mu': Size(width=64, depth=2, heads=2, embedding=48, position_size=16, position_groups=4),
    'base': Size(),  # BEATs_iter1 to iter3+
}


class Beats(nn.Module):
    """Normalised fbank in, patch and frame embeddings and their mean out.

    The original masks by pairs of frames: of a patch in which a clip ends, it keeps the bands whose
    number, times two, is below the frames that the clip fills. So it does here, and a patch that
    is padding but for one frame is a token. Frames behind a clip are taken as silence, which is
    what zeros in the waveform make, so a clip's result depends on its own frames only, if the
    batch holds the whole patch in which it ends; a batch drops frames that fill no patch.

    Parameters: ``patch_embedding``, ``patch_norm``, ``projection``, ``positions``,
    ``embedding_norm``, ``relative_bias``, ``layers`` (see transformer_stack) and, with classes,
    ``classifier``.

    Attributes:
      variant: 'mu', 'base', or a Size.
      dropout: rate inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; norms, softmax and pooling are float32.
    """

    variant: str | Size = 'base'
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, mel_btf, num_frames_b=None, train: bool = False):
        """Embeds clips.

        Args:
          mel_btf: [b, t, f] of the 'beats' front end, t at least a patch.
          num_frames_b: int [b], valid frames; what stands behind them is taken as silence. None is
            all t.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'pooled' float32 [b, d], mean over a clip's tokens; 'frames' float32 [b, t', d], mean over
          a time step's tokens; 'frame_mask' bool [b, t']; 'tokens' [b, t' * f', d], the bands of a
          time step side by side; 'token_mask' bool [b, t' * f']; 'patches' [b, t' * f', e], the
          normalised patch embeddings; 'embeddings' [b, t' * f', d], input of the first block;
          'hidden' [l, b, t' * f', d], every block's output; with classes 'logits' float32
          [b, classes], whose sigmoid are the tags' probabilities.

        Raises:
          ConfigError: an unknown variant.
          ValueError: fewer frames than a patch, or other bins.
        """
        size = self.variant
        if not isinstance(size, Size):
            size = config_lib.choose(VARIANTS, size, where='model.audio.variant')
        b, frames, bins = mel_btf.shape
        if frames < size.patch or bins != size.mel_bins:
            raise ValueError(f'{frames} x {bins} fbank; at least {size.patch} x {size.mel_bins}.')
        steps, bands = frames // size.patch, bins // size.patch
        if num_frames_b is None:
            num_frames_b = jnp.full(b, frames)
        mask_bn = token_mask(num_frames_b, frames, steps * bands)
        mel_btf = windows.fill_padding(mel_btf, num_frames_b, frames, SILENCE)
        patches, x = self._embedded(mel_btf, mask_bn, size)
        tokens, hidden = self._stack(size, train)(x, mask_bn, self._bias(size, steps * bands))
        flat = (b * steps, bands)
        averaged = windows.masked_mean(tokens.reshape(*flat, size.width), mask_bn.reshape(flat))
        outputs = {
            'patches': patches,
            'embeddings': x,
            'hidden': hidden,
            'tokens': tokens,
            'token_mask': mask_bn,
            'frames': averaged.reshape(b, steps, size.width),
            'frame_mask': jnp.any(mask_bn.reshape(b, steps, bands), axis=-1),
            'pooled': windows.masked_mean(tokens, mask_bn),
        }
        if size.classes:
            logits = Dense(size.classes, dtype=self.dtype, name='classifier')(tokens)
            outputs['logits'] = windows.masked_mean(logits, mask_bn)
        return outputs

    def num_tokens(self, num_frames):
        """How many of 'frames' count for a language model, the whole patches: an int or an array.

        There is at least one.
        """
        size = self.variant if isinstance(self.variant, Size) else VARIANTS[self.variant]
        return windows.num_windows(num_frames, size.patch, size.patch, partial=False)

    def _embedded(self, mel_btf, mask_bn, size):
        """Normalised patches and, with positions, the input of the first block."""
        patch = (size.patch, size.patch)
        conv = Conv(
            size.embedding,
            patch,
            patch,
            use_bias=size.patch_bias,
            dtype=self.dtype,
            name='patch_embedding',
        )
        x = conv(mel_btf[..., None])
        x = x.reshape(x.shape[0], -1, size.embedding)
        x = patches = LayerNorm(1e-5, name='patch_norm')(x)
        if size.embedding != size.width:
            x = Dense(size.width, dtype=self.dtype, name='projection')(x)
        x = jnp.where(mask_bn[..., None], x, 0)
        positions = PositionalConv(
            size.position_size, size.position_groups, dtype=self.dtype, name='positions'
        )
        return patches, LayerNorm(1e-5, name='embedding_norm')(x + positions(x))

    def _bias(self, size, length: int):
        """What all layers add to their scores, [1, heads, n, n], or None."""
        if not size.buckets:
            return None
        bias = RelativeBias(size.heads, size.buckets, size.max_distance, name='relative_bias')
        place = jnp.arange(length)[None]
        return bias(place, place).astype(self.dtype)

    def _stack(self, size, train):
        gate = 'query' if size.bias_gate and size.buckets else None
        return transformer_stack(
            size.depth,
            remat=self.remat,
            heads=size.heads,
            mlp_width=size.mlp_width or 4 * size.width,
            post_norm=True,
            residual_scale=(2 * size.depth) ** 0.25 if size.deep_norm else 1.0,
            norm_epsilon=1e-5,
            activation=size.activation,
            attention=FrozenDict({'bias_gate': gate}),
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )


def token_mask(num_frames_b, frames: int, tokens: int) -> jax.Array:
    """bool [b, tokens]: what of the patches the original attends to.

    It cuts the mask of the batch's ``frames`` into as many equal runs as there are tokens, whatever
    frames each token has seen; a token is padding when its whole run is.
    """
    return jnp.arange(tokens) * (frames // tokens) < num_frames_b[:, None]
