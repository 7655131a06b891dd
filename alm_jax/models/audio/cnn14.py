"""Cnn14 of PANNs: a deep convolutional audio tagger (Kong et al. 2020, arXiv:1912.10211, table 2).

The audio encoder of MS-CLAP 2022 and of much captioning work, as panns-inference computes it.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers import windows
from alm_jax.models.layers.conv import Conv
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import FrozenBatchNorm


@dataclasses.dataclass(frozen=True)
class Size:
    """Shape of the encoder.

    Attributes:
      widths: channels of each block; all blocks but the last halve time and frequency.
      mel_bins: of the input.
      embedding: size of the embedding.
      classes: of the tags, AudioSet's.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    mel_bins: int = 64
    embedding: int = 2048
    classes: int = 527

    @property
    def min_frames(self) -> int:
        """Fewer leave no frame after the last halving."""
        return 2 ** (len(self.widths) - 1)


VARIANTS = {
    'mu': Size(widths=(8, 16, 32, 64), embedding=64),
    'cnn14': Size(),  # Cnn14_mAP=0.431.pth
}


class Cnn14(nn.Module):
    """Log-mel in dB in; the outputs of the blocks, an embedding and tag logits out.

    The original knows no padding: its convolutions and its pooling (maximum over time plus mean
    over time) take every frame of the batch, so silence appended to a clip changes the embedding.
    Without ``num_frames_b`` that is what happens here. With it, each clip gets what the original
    gives for that clip by itself, whatever padding follows it.

    Parameters: ``mel_norm``, ``block_1`` ... (``conv_1``, ``norm_1``, ``conv_2``, ``norm_2``),
    ``embedding``, ``classifier``. Batch-norm statistics are stored, never updated.

    Attributes:
      variant: 'mu', 'cnn14', or a Size.
      dtype: compute dtype; norms and pooling over time are float32.
    """

    variant: str | Size = 'cnn14'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, mel_btf, num_frames_b=None, train: bool = False):
        """Embeds clips.

        Args:
          mel_btf: [b, t, f] log-mel in dB of the 'cnn14' front end, t at least 32.
          num_frames_b: int [b], valid frames; what stands behind them never changes the result.
            None is all t.
          train: not used; there is no dropout.

        Returns:
          'pooled' float32 [b, d], the embedding; 'logits' float32 [b, classes], whose sigmoid are
          the tags' probabilities; 'frames' float32 [b, t', c], the last block's mean over
          frequency; 'frame_mask' bool [b, t']; 'normed' [b, t, f], the first block's input;
          'block_1', ... [b, t', f', c], the blocks' outputs.

        Raises:
          ConfigError: an unknown variant.
          ValueError: fewer frames than the halvings need, or other bins.
        """
        del train
        size = self.variant
        if not isinstance(size, Size):
            size = config_lib.choose(VARIANTS, size, where='model.audio.variant')
        frames, bins = mel_btf.shape[1:]
        if frames < size.min_frames or bins != size.mel_bins:
            raise ValueError(
                f'{frames} x {bins} log-mel; at least {size.min_frames} x {size.mel_bins}.'
            )
        x = FrozenBatchNorm(1e-5, use_scale=True, name='mel_norm')(mel_btf)
        x = _silenced(x, num_frames_b).astype(self.dtype)
        outputs = {'normed': x}
        x = x[..., None]
        for number, width in enumerate(size.widths, start=1):
            x = _Block(width, self.dtype, name=f'block_{number}')(x, num_frames_b)
            if number < len(size.widths):
                x = _halved(x)
                if num_frames_b is not None:
                    num_frames_b = jnp.maximum(num_frames_b // 2, 1)
                    x = _silenced(x, num_frames_b)
            outputs[f'block_{number}'] = x
        frames_btc = jnp.mean(x.astype(jnp.float32), axis=2)
        mask_bt = jnp.ones(frames_btc.shape[:2], bool)
        if num_frames_b is not None:
            mask_bt = jnp.arange(frames_btc.shape[1]) < num_frames_b[:, None]
        # What is behind a clip is zero, and nothing is less: it counts neither in sum nor maximum.
        mean = jnp.sum(frames_btc, axis=1) / jnp.sum(mask_bt, axis=1, keepdims=True)
        clip = (jnp.max(frames_btc, axis=1) + mean).astype(self.dtype)
        pooled = nn.relu(Dense(size.embedding, dtype=self.dtype, name='embedding')(clip))
        logits = Dense(size.classes, dtype=self.dtype, name='classifier')(pooled)
        return {
            **outputs,
            'frames': frames_btc,
            'frame_mask': mask_bt,
            'pooled': pooled.astype(jnp.float32),
            'logits': logits.astype(jnp.float32),
        }

    def num_tokens(self, num_frames):
        """How many of 'frames' are a clip's own: an int or an array."""
        size = self.variant if isinstance(self.variant, Size) else VARIANTS[self.variant]
        return windows.num_windows(num_frames, size.min_frames, size.min_frames, partial=False)


class _Block(nn.Module):
    """Twice: 3 x 3 convolution, frozen batch norm, ReLU."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_btfc, num_frames_b):
        x = x_btfc
        around = ((1, 1), (1, 1))
        for i in (1, 2):
            conv = Conv(
                self.width,
                (3, 3),
                padding=around,
                use_bias=False,
                dtype=self.dtype,
                name=f'conv_{i}',
            )
            x = nn.relu(FrozenBatchNorm(1e-5, use_scale=True, name=f'norm_{i}')(conv(x)))
            x = _silenced(x, num_frames_b)
        return x


def _silenced(x, num_frames_b):
    """Zeros behind each clip, as the convolutions see behind the end of a clip by itself."""
    if num_frames_b is None:
        return x
    mask_bt = jnp.arange(x.shape[1]) < num_frames_b[:, None]
    return jnp.where(mask_bt.reshape(*mask_bt.shape, *(1,) * (x.ndim - 2)), x, 0)


def _halved(x_btfc):
    """Means of 2 x 2; an odd last row or column is left out."""
    b, frames, bins, c = x_btfc.shape
    x = x_btfc[:, : frames // 2 * 2, : bins // 2 * 2]
    return x.reshape(b, frames // 2, 2, bins // 2, 2, c).mean(axis=(2, 4))
