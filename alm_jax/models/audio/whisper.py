"""Whisper's audio encoder (Radford et al. 2022, https://arxiv.org/abs/2212.04356, section 2.2)."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers import windows
from alm_jax.models.layers.conv import Conv
from alm_jax.models.layers.dense import Embedding
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import ACTIVATIONS, transformer_stack

NORM_EPSILON = 1e-5
BIASES = ('query', 'value', 'out')  # of an attention: a bias on keys would not change the softmax
MAX_TIMESCALE = 10_000.0


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of the encoder, and the longest input it has positions for.

    Attributes:
      mel_bins: 80, or 128 from large-v3 on.
      mlp_width: None is four times the width.
      positions: of 20 ms each; 1500 are 30 s.
    """

    width: int
    depth: int
    heads: int
    mel_bins: int = 80
    mlp_width: int | None = None
    positions: int = 1500
    activation: str = 'gelu'


VARIANTS = {
    'mu': Size(64, 2, 2),
    'tiny': Size(384, 4, 6),
    'base': Size(512, 6, 8),
    'small': Size(768, 12, 12),
    'medium': Size(1024, 24, 16),
    'large_v2': Size(1280, 32, 20),
    'large_v3': Size(1280, 32, 20, mel_bins=128),
}


class WhisperEncoder(nn.Module):
    """Log-mel in, one vector every 20 ms and their mean out.

    As published it has no mask: it was trained on 30 s, silence included, so what it says of a clip
    depends on the silence behind it, and that is the default here. ``masked`` makes a clip's
    vectors those of the clip alone, whatever stands behind it.

    Parameters: ``conv1``, ``conv2``, ``position_embedding``, ``layers`` (see transformer_stack),
    ``final_norm``. The positions start as sinusoids; the original never trains them (freeze
    ``position_embedding`` to do the same).

    Attributes:
      variant: 'mu', 'tiny', 'base', 'small', 'medium', 'large_v2', 'large_v3', or a Size.
      masked: whether frames behind a clip's end are hidden from its own.
      masked_stem: with ``masked``, whether they are also hidden from the convolutions, which see
        two of them. Qwen2-Audio and Audio Flamingo 3 hide them from the attention alone.
      pool: so many neighbours are averaged before the final norm; 2 in these.
      dropout: rate after the positions and inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; layer norms, softmax and pooling are float32.
    """

    variant: str | Size = 'tiny'
    masked: bool = False
    masked_stem: bool = True
    pool: int = 1
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, mel_btf, num_frames_b=None, train: bool = False):
        """Encodes windows of up to 30 s; shorter ones take the first of the positions.

        Args:
          mel_btf: [b, t, f] log-mel of a 'whisper' front end (100 frames a second).
          num_frames_b: int [b], the frames that belong to each clip; None is all. Unless
            ``masked``, they only say what 'pooled' is the mean of.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          With t' = ceil(t / 2): 'tokens' [b, t' // pool, d], the last block's output after the
          final norm; 'frame_mask' bool [b, t' // pool], those of the clip alone; 'pooled' float32
          [b, d], their mean; 'conv1' [b, t, d] and 'conv2' [b, t', d], after their activations;
          'embeddings' [b, t', d], input of the first block; 'hidden' [l, b, t', d], every block's
          output.

        Raises:
          ConfigError: for an unknown variant.
          ValueError: another number of mel bins, or more frames than there are positions for.
        """
        size = self.variant
        if not isinstance(size, Size):
            size = config_lib.choose(VARIANTS, size, where='model.audio.variant')
        if mel_btf.shape[-1] != size.mel_bins:
            raise ValueError(f'the encoder takes {size.mel_bins} mel bins, not {mel_btf.shape[2]}.')
        length = -(-mel_btf.shape[1] // 2)
        if length > size.positions:
            raise ValueError(
                f'{mel_btf.shape[1]} frames; the encoder has positions for {2 * size.positions}.'
            )
        if num_frames_b is None:
            num_frames_b = jnp.full(mel_btf.shape[:1], mel_btf.shape[1])
        outputs = self._stem(mel_btf, num_frames_b, size)
        mask = _mask(-(-num_frames_b // 2), length)
        positions = Embedding(size.positions, size.width, _sinusoids, name='position_embedding')()
        x = outputs['conv2'] + positions[:length].astype(self.dtype)
        x = outputs['embeddings'] = nn.Dropout(self.dropout, deterministic=not train)(x)
        stack = transformer_stack(
            size.depth,
            remat=self.remat,
            heads=size.heads,
            mlp_width=size.mlp_width or 4 * size.width,
            norm_epsilon=NORM_EPSILON,
            activation=size.activation,
            attention=FrozenDict(biases=BIASES),
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )
        x, outputs['hidden'] = stack(x, mask if self.masked else None)
        if self.pool > 1:
            length //= self.pool
            x = x[:, : length * self.pool].reshape(x.shape[0], length, self.pool, -1).mean(axis=2)
            mask = _mask(self.num_tokens(num_frames_b), length)
        outputs['tokens'] = LayerNorm(NORM_EPSILON, name='final_norm')(x)
        outputs['frame_mask'] = mask
        outputs['pooled'] = windows.masked_mean(outputs['tokens'], mask)
        return outputs

    def num_tokens(self, num_frames):
        """How many of 'tokens' are a clip's own: an int or an array."""
        return -(-num_frames // 2) // self.pool

    def _stem(self, mel_btf, num_frames_b, size):
        """{'conv1', 'conv2'}: two convolutions of three frames, the second one with stride 2."""
        outputs, x, count_b = {}, mel_btf, num_frames_b
        for name, stride in (('conv1', 1), ('conv2', 2)):
            if self.masked and self.masked_stem:  # as if the input ended with the clip
                x = jnp.where(_mask(count_b, x.shape[1])[..., None], x, 0)
            conv = Conv(size.width, (3,), (stride,), [(1, 1)], dtype=self.dtype, name=name)
            x = outputs[name] = ACTIVATIONS[size.activation](conv(x))
        return outputs


def _mask(count_b, length: int):
    """bool [b, length]: the first ``count_b`` of each row."""
    return jnp.arange(length) < count_b[:, None]


def _sinusoids(key, shape, dtype=jnp.float32):
    """The positions' start: sines, then cosines, of rates from 1 to 1 / MAX_TIMESCALE."""
    del key
    length, width = shape
    rate = MAX_TIMESCALE ** -(np.arange(width // 2) / (width // 2 - 1))
    angle = np.arange(length)[:, None] * rate
    return jnp.asarray(np.concatenate([np.sin(angle), np.cos(angle)], axis=1), dtype)
