"""A vision transformer over patches of a log-mel spectrogram, for clips of any length.

The encoder of AST (Gong et al. 2021, https://arxiv.org/abs/2104.01778) with separable positions:
a fixed sin-cos embedding over time, so that no length is special, plus a learned one over
frequency. Pre-norm blocks as in ViT; mean pooling instead of a class token.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers import windows
from alm_jax.models.layers.dense import Embedding
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.positions import sin_cos
from alm_jax.models.layers.transformer import transformer_stack


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of a transformer; its MLP is four times as wide."""

    width: int
    depth: int
    heads: int


VARIANTS = {
    'mu': Size(64, 2, 2),
    'Ti': Size(192, 12, 3),
    'S': Size(384, 12, 6),
    'B': Size(768, 12, 12),
    'L': Size(1024, 24, 16),
}


class SpectrogramTransformer(nn.Module):
    """Log-mel in, frame embeddings and their mean out.

    Parameters: ``patch_embedding`` (kernel [pt, pf, 1, d], bias), ``frequency_embedding``
    (embedding [f', d]), ``layers`` (see transformer_stack), ``final_norm``.

    Attributes:
      variant: 'mu', 'Ti', 'S', 'B' or 'L'.
      patch: (frames, mel bins) of a patch.
      stride: (frames, mel bins) between patches; AST overlaps with (10, 10).
      input_mean: subtracted from the log-mel; also what padding is filled with.
      input_std: the log-mel is divided by it.
      dropout: rate inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; layer norms, softmax and pooling are float32.
    """

    variant: str = 'B'
    patch: tuple[int, int] = (16, 16)
    stride: tuple[int, int] = (16, 16)
    input_mean: float = 0.0
    input_std: float = 1.0
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, mel_btf, num_frames_b, train: bool = False):
        """Embeds clips; frames beyond ``num_frames_b`` never change the result.

        Args:
          mel_btf: [b, t, f] log-mel.
          num_frames_b: int [b], valid frames.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'pooled' float32 [b, d], mean over a clip's tokens; 'frames' float32 [b, t', d], mean
          over frequency of each time step's tokens; 'frame_mask' bool [b, t']; 'embeddings'
          [b, t' * f', d], input of the first block; 'hidden' [l, b, t' * f', d], every block's
          output; 'tokens' [b, t' * f', d], the last one normalised.

        Raises:
          ConfigError: for an unknown variant.
          ValueError: when f is smaller than a patch.
        """
        size = config_lib.choose(VARIANTS, self.variant, where='model.audio.variant')
        grid_btfd, mask_bt = self._patch_embedding(mel_btf, num_frames_b, size.width)
        b, steps, bands, d = grid_btfd.shape
        embeddings = grid_btfd.reshape(b, steps * bands, d)
        stack = transformer_stack(
            size.depth,
            remat=self.remat,
            heads=size.heads,
            mlp_width=4 * size.width,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )
        x, hidden = stack(embeddings, jnp.repeat(mask_bt, bands, axis=1))
        tokens = LayerNorm(name='final_norm')(x)
        frames = jnp.mean(tokens.astype(jnp.float32).reshape(b, steps, bands, d), axis=2)
        return {
            'embeddings': embeddings,
            'hidden': hidden,
            'tokens': tokens,
            'frames': frames,
            'frame_mask': mask_bt,
            'pooled': windows.masked_mean(frames, mask_bt),
        }

    def _patch_embedding(self, mel_btf, num_frames_b, width):
        (frames, bins), (hop, bin_hop) = self.patch, self.stride
        if mel_btf.shape[-1] < bins:
            raise ValueError(f'{mel_btf.shape[-1]} mel bins are fewer than a patch of {bins}.')
        count = windows.num_windows(mel_btf.shape[1], frames, hop)
        mel = (mel_btf - self.input_mean) / self.input_std
        mel = windows.fill_padding(mel, num_frames_b, frames + (count - 1) * hop, 0.0)
        x = _PatchConv(width, (frames, bins), (hop, bin_hop), self.dtype, name='patch_embedding')(
            mel
        )
        time_td = sin_cos(count, width)[:, None]
        frequency_fd = Embedding(*x.shape[2:], name='frequency_embedding')()
        x = x + (time_td + frequency_fd).astype(x.dtype)
        return x, windows.window_mask(num_frames_b, count, frames, hop)


class _PatchConv(nn.Module):
    """[b, t, f] -> [b, t', f', width]: a linear map of every patch."""

    width: int
    patch: tuple[int, int]
    stride: tuple[int, int]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, mel_btf):
        init = nn.initializers.lecun_normal()
        kernel = self.param('kernel', init, (*self.patch, 1, self.width)).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (self.width,)).astype(self.dtype)
        x = mel_btf[..., None].astype(self.dtype)
        numbers = ('NHWC', 'HWIO', 'NHWC')
        x = lax.conv_general_dilated(x, kernel, self.stride, 'VALID', dimension_numbers=numbers)
        return x + bias
