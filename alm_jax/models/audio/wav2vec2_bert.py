"""w2v-BERT 2.0, a Conformer over log-mel (Seamless Communication 2023, section 3.2).

https://arxiv.org/abs/2312.05187; after w2v-BERT (Chung et al. 2021,
https://arxiv.org/abs/2108.06209).
"""

import dataclasses
import functools

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.audio import wav2vec2_conformer
from alm_jax.models.layers import rotary, windows
from alm_jax.models.layers.conformer import ConformerBlock
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.relative_positions import EmbeddingScores
from alm_jax.models.layers.transformer import transformer_stack

STACKED = 2  # frames that make a vector


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of the encoder.

    Attributes:
      mel_bins: of a frame; two frames are a vector.
      mlp_width: None is four times the width.
      positions: 'relative_key' (a vector for each distance), 'relative' (Transformer-XL's),
        'rotary', or 'none'.
      behind, ahead: of 'relative_key', see EmbeddingScores.
      rotary_base: see ``rotary.frequencies``.
      conv_module_size: of the depthwise convolution of the blocks.
      mask_embedding: whether there is a vector that stands for masked ones.
      vocabulary: tokens of the CTC head; None is no head.
    """

    width: int
    depth: int
    heads: int
    mel_bins: int = 80
    mlp_width: int | None = None
    positions: str = 'relative_key'
    behind: int = 64
    ahead: int = 8
    rotary_base: float = 10_000.0
    conv_module_size: int = 31
    norm_epsilon: float = 1e-5
    activation: str = 'silu'
    mask_embedding: bool = True
    vocabulary: int | None = None

    @property
    def attention(self) -> FrozenDict:
        """Of ConformerBlock. Raises ConfigError for unknown positions."""
        learned = functools.partial(EmbeddingScores, self.behind, self.ahead)
        kinds = {'relative_key': FrozenDict(relative=learned), **wav2vec2_conformer.POSITIONS}
        return config_lib.choose(kinds, self.positions, where='positions')


VARIANTS = {'mu': Size(64, 2, 2), 'large': Size(1024, 24, 16)}  # facebook/w2v-bert-2.0


class Wav2Vec2Bert(nn.Module):
    """Log-mel in, one vector every 20 ms and their mean out; with a head, scores of CTC.

    A clip's vectors are those of the clip alone, whatever padding is behind it. The original's
    LayerDrop and random masks are of its training and not here; ``masked_bt`` says which vectors
    to mask.

    Parameters: ``projection_norm``, ``projection``, ``mask_embedding`` [d], ``layers`` (stacked
    ConformerBlocks) and, where there is one, ``head``.

    Attributes:
      variant: 'mu', 'large', or a Size.
      dropout: rate inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; norms, softmax and pooling are float32.
    """

    variant: str | Size = 'large'
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, mel_btf, num_frames_b=None, masked_bt=None, train=False):
        """Encodes clips.

        Args:
          mel_btf: float32 [b, t, f], 100 frames a second, t even; every bin of a clip of mean 0 and
            variance 1.
          num_frames_b: int [b], those that belong to each clip; None is all. Of an odd number the
            last one is hidden with the padding.
          masked_bt: bool [b, t / 2], vectors that ``mask_embedding`` replaces.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          With t' = t / 2: 'tokens' [b, t', d], the last block's output; 'frame_mask' bool [b, t'],
          those of the clip; 'pooled' float32 [b, d], their mean; 'features' [b, t', 2 f], what is
          projected; 'embeddings' [b, t', d], input of the first block; 'hidden' [l, b, t', d],
          every block's output; with a head 'logits' float32 [b, t', v].

        Raises:
          ConfigError: for an unknown variant.
          ValueError: another number of mel bins, or an odd number of frames; ``masked_bt`` without
            the vector for it.
        """
        size = self.variant
        if not isinstance(size, Size):
            size = config_lib.choose(VARIANTS, size, where='model.audio.variant')
        b, t, bins = mel_btf.shape
        if bins != size.mel_bins or t % STACKED:
            raise ValueError(f'{t} frames of {bins} bins; not an even number of {size.mel_bins}.')
        if masked_bt is not None and not size.mask_embedding:
            raise ValueError('masked_bt: the size has no mask_embedding.')
        if num_frames_b is None:
            num_frames_b = jnp.full((b,), t)
        mask_bt = jnp.arange(t // STACKED) < (num_frames_b // STACKED)[:, None]
        x = mel_btf.astype(self.dtype).reshape(b, t // STACKED, -1)
        features = x = LayerNorm(size.norm_epsilon, name='projection_norm')(x)
        x = Dense(size.width, dtype=self.dtype, name='projection')(x)
        if size.mask_embedding:
            start = nn.initializers.uniform(1.0)
            masked = self.param('mask_embedding', start, (size.width,)).astype(self.dtype)
            x = x if masked_bt is None else jnp.where(masked_bt[..., None], masked, x)
        embeddings = x = jnp.where(mask_bt[..., None], x, 0)
        x, hidden = self._blocks(size, x, mask_bt, train)
        outputs = {
            'features': features,
            'embeddings': embeddings,
            'hidden': hidden,
            'tokens': x,
            'frame_mask': mask_bt,
            'pooled': windows.masked_mean(x, mask_bt),
        }
        if size.vocabulary is not None:
            head = Dense(size.vocabulary, dtype=self.dtype, name='head')
            outputs['logits'] = head(x).astype(jnp.float32)
        return outputs

    def _blocks(self, size, x, mask_bt, train):
        rope = None
        if size.positions == 'rotary':
            rates = rotary.frequencies(size.width // size.heads, size.rotary_base)
            rope = rotary.cos_sin(jnp.arange(x.shape[1])[None], rates)
        return transformer_stack(
            size.depth,
            remat=self.remat,
            kind=ConformerBlock,
            heads=size.heads,
            mlp_width=size.mlp_width or 4 * size.width,
            conv=FrozenDict(size=size.conv_module_size, causal=True, norm='layer'),
            attention=size.attention,
            activation=size.activation,
            norm_epsilon=size.norm_epsilon,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )(x, mask_bt, mask_bt, rope)
