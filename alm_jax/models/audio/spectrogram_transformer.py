"""A vision transformer over patches of a log-mel spectrogram: AST, PaSST, AudioMAE, CAV-MAE.

By default the encoder of AST (Gong et al. 2021, https://arxiv.org/abs/2104.01778) with separable
positions: a fixed sin-cos embedding over time, so that no length is special, plus a learned one
over frequency. Pre-norm blocks as in ViT; mean pooling instead of a class token. The published
models are this one with other options; ``interop.families`` has them.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.audio.spectrogram_positions import kept, positions
from alm_jax.models.layers import windows
from alm_jax.models.layers.conv import Conv
from alm_jax.models.layers.dense import Dense, Embedding
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import transformer_stack


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of a transformer.

    Attributes:
      mlp_width: None is four times the width.
      biases: of the attention's projections.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int | None = None
    activation: str = 'gelu'
    norm_epsilon: float = 1e-6
    biases: tuple[str, ...] = ('query', 'key', 'value', 'out')


VARIANTS = {
    'mu': Size(64, 2, 2),
    'Ti': Size(192, 12, 3),
    'S': Size(384, 12, 6),
    'B': Size(768, 12, 12),
    'L': Size(1024, 24, 16),
}
POOLS = ('mean', 'prefix')


class SpectrogramTransformer(nn.Module):
    """Log-mel in, frame embeddings and their mean out.

    Parameters: ``patch_embedding`` (kernel [pt, pf, 1, d], bias), those of ``positions``,
    ``layers`` (see transformer_stack), ``final_norm``; with ``prefix`` also ``prefix_embedding``
    [prefix, d] and, where positions are learned, ``prefix_position_embedding``; with ``modality``
    ``modality_embedding`` [1, d]; with ``classes`` ``head`` and ``head_norm``.

    Attributes:
      variant: 'mu', 'Ti', 'S', 'B' or 'L', or a Size.
      patch: (frames, mel bins) of a patch.
      stride: (frames, mel bins) between patches; AST overlaps with (10, 10).
      input_mean: subtracted from the log-mel; also what padding is filled with.
      input_std: the log-mel is divided by it.
      positions: 'sin_cos', 'separable' or 'absolute', see ``spectrogram_positions``.
      grid: (steps, bands) that learned positions exist for; None is as many as the first input has.
      stretch: whether learned positions are fitted to other lengths as AST does it. They then
        depend on the length of the batch, padding included.
      prefix: tokens before the patches: 1 is a class token, 2 a distillation token besides.
      modality: whether one more vector is added to every token (CAV-MAE).
      masked: whether a clip's result is that of the clip alone, whatever stands behind it. The
        originals of AST, AudioMAE and CAV-MAE have no mask: there, padding is part of the clip.
      partial: whether frames that fill only part of a last patch make one, filled up; the
        originals drop them.
      patchout: (steps, bands) left out at random in training, the same ones for the whole batch:
        structured patchout (Koutini et al. 2021, https://arxiv.org/abs/2110.05069, section 2.2).
      token_patchout: patches left out at random in training, after that: unstructured patchout.
      pool: 'mean' of the patches, or of the 'prefix'.
      norm_pooled: whether the final norm is over the pooled vector instead of the tokens (the
        fc_norm of MAE's fine-tuned ViT).
      classes: of a linear head on the pooled vector; 0 is no head.
      head_norm: epsilon of a norm that the head begins with; None is no such norm.
      dropout: rate inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; layer norms, softmax, pooling and head are float32.
    """

    variant: str | Size = 'B'
    patch: tuple[int, int] = (16, 16)
    stride: tuple[int, int] = (16, 16)
    input_mean: float = 0.0
    input_std: float = 1.0
    positions: str = 'sin_cos'
    grid: tuple[int, int] | None = None
    stretch: bool = False
    prefix: int = 0
    modality: bool = False
    masked: bool = True
    partial: bool = True
    patchout: tuple[int, int] = (0, 0)
    token_patchout: int = 0
    pool: str = 'mean'
    norm_pooled: bool = False
    classes: int = 0
    head_norm: float | None = None
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, mel_btf, num_frames_b=None, train: bool = False):
        """Embeds clips; if ``masked``, frames beyond ``num_frames_b`` never change the result.

        Args:
          mel_btf: [b, t, f] log-mel.
          num_frames_b: int [b], valid frames; None is all.
          train: turns dropout and patchout on (rng stream 'dropout').

        Returns:
          With t' steps and f' bands of patches and n tokens (the prefix, then t' * f' patches, band
          by band within a step): 'pooled' float32 [b, d]; 'frames' float32 [b, t', d], mean over
          frequency of each step's tokens; 'frame_mask' bool [b, t'], steps that the clip has;
          'embeddings' [b, n, d], input of the first block; 'hidden' [l, b, n, d], every block's
          output; 'tokens' [b, n, d], the last one normalised; 'logits' float32 [b, classes].
          With patchout in training: 'kept_steps', 'kept_bands' and 'kept_tokens', the indices that
          are left, as far as some are left out; with ``token_patchout`` no 'frames'.

        Raises:
          ConfigError: for an unknown variant, kind of positions or pool.
          ValueError: when f is smaller than a patch, patchout leaves nothing, or there are more
            patches than positions.
        """
        size = self.variant
        if not isinstance(size, Size):
            size = config_lib.choose(VARIANTS, size, where='model.audio.variant')
        pools = POOLS if self.prefix else POOLS[:1]
        config_lib.choose(dict.fromkeys(pools), self.pool, where='model.audio.pool')
        grid_btfd, mask_bt = self._patches(mel_btf, num_frames_b, size.width)
        grid_btfd, mask_bt, outputs = self._structured_patchout(grid_btfd, mask_bt, train)
        b, steps, bands, d = grid_btfd.shape
        x, mask_bn = grid_btfd.reshape(b, -1, d), jnp.repeat(mask_bt, bands, axis=1)
        if train and self.token_patchout:
            left = kept(self.make_rng('dropout'), steps * bands, self.token_patchout)
            x, mask_bn, outputs['kept_tokens'] = x[:, left], mask_bn[:, left], left
        x = outputs['embeddings'] = self._tokens(x)
        in_front = jnp.ones((b, self.prefix), bool)
        hide = jnp.concatenate([in_front, mask_bn], axis=1) if self.masked else None
        x, outputs['hidden'] = self._stack(size, train)(x, hide)
        norm = LayerNorm(size.norm_epsilon, name='final_norm')
        tokens = outputs['tokens'] = x if self.norm_pooled else norm(x)
        patches = tokens[:, self.prefix :].astype(jnp.float32)
        if patches.shape[1] == steps * bands:
            outputs['frames'] = jnp.mean(patches.reshape(b, steps, bands, d), axis=2)
        outputs['frame_mask'] = mask_bt
        if self.pool == 'prefix':
            pooled = jnp.mean(tokens[:, : self.prefix].astype(jnp.float32), axis=1)
        else:
            counted = mask_bn if self.masked else jnp.ones_like(mask_bn)
            pooled = windows.masked_mean(patches, counted)
        outputs['pooled'] = norm(pooled) if self.norm_pooled else pooled
        if self.classes:
            outputs['logits'] = self._head(outputs['pooled'])
        return outputs

    def num_tokens(self, num_frames):
        """How many of 'frames' are a clip's own, without patchout: an int or an array."""
        return windows.num_windows(num_frames, self.patch[0], self.stride[0], self.partial)

    def _patches(self, mel_btf, num_frames_b, width):
        """([b, t', f', d] with positions, bool [b, t'])."""
        (frames, bins), (hop, bin_hop) = self.patch, self.stride
        b, t, f = mel_btf.shape
        if f < bins:
            raise ValueError(f'{f} mel bins are fewer than a patch of {bins}.')
        all_b = jnp.full(b, t)
        num_frames_b = all_b if num_frames_b is None else num_frames_b
        count = windows.num_windows(t, frames, hop, self.partial)
        mel = (mel_btf - self.input_mean) / self.input_std
        length = max(t, frames + (count - 1) * hop)
        mel = windows.fill_padding(mel, num_frames_b if self.masked else all_b, length, 0.0)
        conv = Conv(width, (frames, bins), (hop, bin_hop), dtype=self.dtype, name='patch_embedding')
        x = conv(mel[..., None])
        x += positions(self.positions, *x.shape[1:], self.grid, self.stretch).astype(x.dtype)
        return x, windows.window_mask(num_frames_b, count, frames, hop, self.partial)

    def _structured_patchout(self, grid_btfd, mask_bt, train):
        """(grid, mask, {'kept_steps', 'kept_bands'} as far as some are left out)."""
        outputs = {}
        if train and self.patchout[0]:
            left = kept(self.make_rng('dropout'), grid_btfd.shape[1], self.patchout[0])
            grid_btfd, mask_bt, outputs['kept_steps'] = grid_btfd[:, left], mask_bt[:, left], left
        if train and self.patchout[1]:
            left = kept(self.make_rng('dropout'), grid_btfd.shape[2], self.patchout[1])
            grid_btfd, outputs['kept_bands'] = grid_btfd[:, :, left], left
        return grid_btfd, mask_bt, outputs

    def _tokens(self, x_bnd):
        """The patches with what stands before them and what is added to all."""
        b, _, d = x_bnd.shape
        if self.prefix:
            first = Embedding(self.prefix, d, name='prefix_embedding')()
            if self.positions != 'sin_cos':
                first += Embedding(self.prefix, d, name='prefix_position_embedding')()
            first = jnp.broadcast_to(first.astype(x_bnd.dtype), (b, self.prefix, d))
            x_bnd = jnp.concatenate([first, x_bnd], axis=1)
        if self.modality:
            x_bnd += Embedding(1, d, name='modality_embedding')().astype(x_bnd.dtype)
        return x_bnd

    def _stack(self, size, train):
        return transformer_stack(
            size.depth,
            remat=self.remat,
            heads=size.heads,
            mlp_width=size.mlp_width or 4 * size.width,
            norm_epsilon=size.norm_epsilon,
            activation=size.activation,
            attention=FrozenDict(biases=size.biases),
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )

    def _head(self, pooled_bd):
        if self.head_norm is not None:
            pooled_bd = LayerNorm(self.head_norm, name='head_norm')(pooled_bd)
        return Dense(self.classes, name='head')(pooled_bd)
