"""HTS-AT, a Swin transformer over a folded spectrogram (Chen et al. 2022, arXiv:2202.00874).

The audio encoder of LAION-CLAP, with its attentional feature fusion for clips longer than the
window (Wu et al. 2022, arXiv:2211.06687, section 3.2), as transformers' ClapAudioModel computes it.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers.attention import PROJECTIONS
from alm_jax.models.layers.conv import Conv
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import FrozenBatchNorm, LayerNorm
from alm_jax.models.layers.resize import bicubic_matrix
from alm_jax.models.layers.shifted_windows import SwinPair


@dataclasses.dataclass(frozen=True)
class Size:
    """Shape of the encoder.

    Attributes:
      width: of the first stage; each later one has twice the width of the one before.
      depths: blocks of each stage, in pairs of a plain and a shifted one.
      heads: attention heads of each stage.
      window: patches along a side of an attention window.
      patch: frames and bins of a patch; it is also the stride.
      image: side of the square that the spectrogram is folded into.
      mel_bins: of the input.
      fusion_reduction: bottleneck of the fusion block.
    """

    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 8
    patch: int = 4
    image: int = 256
    mel_bins: int = 64
    mlp_ratio: float = 4.0
    norm_epsilon: float = 1e-5
    qkv_bias: bool = True
    patch_norm: bool = True
    fusion_reduction: int = 4


VARIANTS = {
    'mu': Size(width=16, depths=(2, 2), heads=(2, 4), image=128, window=4),
    'tiny': Size(),  # laion/clap-htsat-unfused
    'base': Size(width=128, depths=(2, 2, 12, 2)),
    'large': Size(width=256, depths=(2, 2, 12, 2)),  # AF-CLAP
}


class HtsAt(nn.Module):
    """Log-mel in dB in, frame embeddings and their mean out.

    A clip of fewer frames than the image holds (``image ** 2 / mel_bins``, 1024) is stretched to it
    by bicubic interpolation, whatever it is: the encoder knows one length. So a clip must be padded
    to its window before the front end (CLAP repeats it), and padding changes the embedding, here
    as in the original; ``num_frames_b`` is not used.

    Parameters: ``mel_norm``, ``patch_embedding``, ``patch_norm``, ``stage_0`` ... (``layers``:
    pairs ``plain``, ``shifted``; ``merge_norm``, ``merge``), ``final_norm``; with ``fusion`` also
    ``local_patches`` and ``fusion``. Batch-norm statistics are stored, never updated.

    Attributes:
      variant: 'mu', 'tiny', 'base', or a Size.
      fusion: whether the input has four spectrograms, the whole clip and three cuts of it.
      dense: whether 'frames' are every token, band by band within a step, instead of their mean
        over frequency (Audio Flamingo 2).
      remat: what blocks recompute in the backward pass, see ``transformer_stack``.
      dtype: compute dtype; norms, softmax and pooling are float32.
    """

    variant: str | Size = 'tiny'
    fusion: bool = False
    dense: bool = False
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, mel_btf, num_frames_b=None, train: bool = False, longer_b=None):
        """Embeds clips.

        Args:
          mel_btf: [b, t, f] log-mel in dB; with ``fusion`` [b, 4, t, f].
          num_frames_b: not used.
          train: not used; there is no dropout.
          longer_b: with ``fusion``, bool [b]: clips that were longer than the window; None is none.
            The cuts of the others are not looked at.

        Returns:
          'pooled' float32 [b, d], mean over all; 'frames' float32 [b, t', d], mean over frequency,
          or ``dense`` [b, t' * f', d]; 'frame_mask' bool of these, all True; 'embeddings'
          [b, h, w, c], the first stage's input; 'stage_0', ... [b, h, w, c], the stages' outputs;
          'tokens' [b, f', t', d].

        Raises:
          ConfigError: an unknown variant.
          ValueError: more frames, or other bins, than the image holds.
        """
        del num_frames_b, train
        size = self.variant
        if not isinstance(size, Size):
            size = config_lib.choose(VARIANTS, size, where='model.audio.variant')
        mel = mel_btf if self.fusion else mel_btf[:, None]
        x = self._patches(_fold(self._normalised(mel, size), size), size, longer_b)
        if size.patch_norm:
            x = LayerNorm(1e-5, name='patch_norm')(x)
        outputs = {'embeddings': x}
        for i, (depth, heads) in enumerate(zip(size.depths, size.heads)):
            last = i == len(size.depths) - 1
            x = _Stage(size, depth, heads, last, self.remat, self.dtype, name=f'stage_{i}')(x)
            outputs[f'stage_{i}'] = x
        tokens = _unfold(LayerNorm(1e-5, name='final_norm')(x), size)
        frames = tokens.astype(jnp.float32)
        if self.dense:
            frames = frames.transpose(0, 2, 1, 3).reshape(len(frames), -1, frames.shape[-1])
        else:
            frames = jnp.mean(frames, axis=1)
        return {
            **outputs,
            'tokens': tokens,
            'frames': frames,
            'frame_mask': jnp.ones(frames.shape[:2], bool),
            'pooled': jnp.mean(frames, axis=1),
        }

    def num_tokens(self, num_frames):
        """How many 'frames' there are of a clip, whatever its length: an int or an array."""
        size = self.variant if isinstance(self.variant, Size) else VARIANTS[self.variant]
        width = size.image // size.patch // 2 ** (len(size.depths) - 1)
        steps = width * (size.image // size.mel_bins)
        return num_frames * 0 + (width * width if self.dense else steps)

    def _normalised(self, mel_bctf, size):
        """Normalised and stretched to the frames of the image: [b, c, image * ratio, f]."""
        frames, bins = mel_bctf.shape[-2:]
        full = size.image * size.image // size.mel_bins
        if frames > full or bins != size.mel_bins:
            raise ValueError(f'{frames} x {bins} log-mel; at most {full} x {size.mel_bins}.')
        norm = FrozenBatchNorm(1e-5, use_scale=True, name='mel_norm')
        x = norm(mel_bctf).astype(self.dtype)
        if frames == full:
            return x
        return jnp.einsum('st,bctf->bcsf', jnp.asarray(bicubic_matrix(frames, full), x.dtype), x)

    def _patches(self, image_bchw, size, longer_b):
        """[b, c, h, w] -> [b, h', w', d]: patches of the first image, fused with the others."""
        patch = (size.patch, size.patch)
        conv = Conv(size.width, patch, patch, dtype=self.dtype, name='patch_embedding')
        x = conv(image_bchw[:, 0, ..., None])
        if not self.fusion:
            return x
        cuts = image_bchw[:, 1:]
        b, c, height, width = cuts.shape
        wide = (size.patch, 3 * size.patch)
        local = Conv(size.width, wide, wide, dtype=self.dtype, name='local_patches')
        y = local(cuts.reshape(b * c, height, width, 1))
        y = y.reshape(b, c, *y.shape[1:]).transpose(0, 2, 1, 3, 4)
        y = y.reshape(*y.shape[:2], -1, size.width)  # the cuts side by side in time
        y = jnp.pad(y, ((0, 0), (0, 0), (0, x.shape[2] - y.shape[2]), (0, 0)))
        fused = _Fusion(size.width // size.fusion_reduction, self.dtype, name='fusion')(x, y)
        longer_b = jnp.zeros(b, bool) if longer_b is None else longer_b
        return jnp.where(longer_b[:, None, None, None], fused, x)


class _Stage(nn.Module):
    """Pairs of blocks, then, but for the last stage, 2 x 2 patches merged into one."""

    size: Size
    depth: int
    heads: int
    last: bool
    remat: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_bhwd):
        pairs = nn.scan(
            SwinPair,
            variable_axes={'params': 0},
            split_rngs={'params': True},
            length=self.depth // 2,
        )
        d = x_bhwd.shape[-1]
        biases = PROJECTIONS if self.size.qkv_bias else ('out',)
        x, _ = pairs(
            heads=self.heads,
            mlp_width=int(self.size.mlp_ratio * d),
            window=self.size.window,
            norm_epsilon=self.size.norm_epsilon,
            biases=biases,
            remat=self.remat,
            dtype=self.dtype,
            name='layers',
        )(x_bhwd, None)
        if self.last:
            return x
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        corners = [x[:, row::2, column::2] for column in range(2) for row in range(2)]
        x = LayerNorm(1e-5, name='merge_norm')(jnp.concatenate(corners, axis=-1))
        return Dense(2 * d, use_bias=False, dtype=self.dtype, name='merge')(x)


class _Fusion(nn.Module):
    """Attentional feature fusion (Dai et al. 2020, arXiv:2009.14082) of a whole and its cuts."""

    bottleneck: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, whole_bhwd, cuts_bhwd):
        d = whole_bhwd.shape[-1]
        both = whole_bhwd + cuts_bhwd

        def attention(x, name):
            x = Dense(self.bottleneck, dtype=self.dtype, name=f'{name}_in')(x)
            x = nn.relu(FrozenBatchNorm(1e-5, use_scale=True, name=f'{name}_in_norm')(x))
            x = Dense(d, dtype=self.dtype, name=f'{name}_out')(x)
            return FrozenBatchNorm(1e-5, use_scale=True, name=f'{name}_out_norm')(x)

        everywhere = attention(jnp.mean(both, axis=(1, 2), keepdims=True), 'global')
        share = nn.sigmoid(attention(both, 'local') + everywhere)
        return 2 * whole_bhwd * share + 2 * cuts_bhwd * (1 - share)


def _fold(mel_bctf, size: Size):
    """Cuts time into image / mel_bins stretches and stacks them over frequency: [b, c, h, w]."""
    b, c, frames, bins = mel_bctf.shape
    stretches = size.image // bins
    x = mel_bctf.reshape(b, c, stretches, frames // stretches, bins)
    return x.swapaxes(-1, -2).reshape(b, c, stretches * bins, frames // stretches)


def _unfold(x_bhwd, size: Size):
    """The inverse on patches: [b, h, w, d] -> [b, f', t', d]."""
    b, height, width, d = x_bhwd.shape
    stretches = size.image // size.mel_bins
    x = x_bhwd.reshape(b, stretches, height // stretches, width, d)
    return jnp.moveaxis(x, 1, 2).reshape(b, height // stretches, stretches * width, d)
