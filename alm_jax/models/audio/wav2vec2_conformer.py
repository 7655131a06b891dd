"""Wav2Vec2-Conformer: wav2vec 2.0 with the Conformer's blocks (Wang et al. 2020, fairseq S2T).

https://arxiv.org/abs/2010.05171; after Gulati et al. 2020, https://arxiv.org/abs/2005.08100.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from flax.core import FrozenDict

from alm_jax import config as config_lib
from alm_jax.models.audio import wav2vec2
from alm_jax.models.audio.wav2vec2 import Wav2Vec2
from alm_jax.models.layers import rotary
from alm_jax.models.layers.conformer import ConformerBlock
from alm_jax.models.layers.relative_positions import SinusoidScores
from alm_jax.models.layers.transformer import transformer_stack

BLOCK_EPSILON = 1e-5  # of the blocks' norms
POSITIONS = {
    'relative': FrozenDict(relative=SinusoidScores),
    'rotary': FrozenDict(rope_input=True),
    'none': FrozenDict(),
}


@dataclasses.dataclass(frozen=True)
class Size(wav2vec2.Size):
    """What it has beside wav2vec 2.0's sizes, of which ``position_*`` and ``buckets`` do nothing.

    Attributes:
      positions: 'relative' (Transformer-XL's), 'rotary', or 'none'.
      rotary_base: see ``rotary.frequencies``.
      conv_module_size: of the depthwise convolution of the blocks.
    """

    pre_norm: bool = True  # a norm at the end
    positions: str = 'relative'
    rotary_base: float = 10_000.0
    conv_module_size: int = 31


_LARGE = Size(1024, 24, 16, conv_norm='layer', conv_bias=True, activation='silu')
VARIANTS = {
    'mu': Size(64, 2, 2, conv_widths=(32,) * 7, activation='silu'),
    'relative_large': _LARGE,  # wav2vec2-conformer-rel-pos-large
    'rotary_large': dataclasses.replace(_LARGE, positions='rotary'),
}


class Wav2Vec2Conformer(Wav2Vec2):
    """Waveform in, one vector every 20 ms and their mean out; with a head, scores of CTC.

    The convolutions of the original's blocks see the padding behind a clip, which is not empty
    after the first block, and so does the group norm of some sizes: what it says of a clip depends
    on the padding. That is the default; ``clip_alone`` hides padding from both.

    Parameters: those of Wav2Vec2, the blocks being ConformerBlocks, without ``positions``; the
    original has that layer and never calls it. ``batch_stats`` has the blocks' batch norms, whose
    statistics training never updates.

    Attributes: see Wav2Vec2.
    """

    variant: str | Size = 'relative_large'

    variants: ClassVar[Mapping[str, Size]] = VARIANTS

    def _positions(self, size, x):
        return x

    def _blocks(self, size, x, seen_bt, train):
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
            conv=FrozenDict(size=size.conv_module_size),
            attention=config_lib.choose(POSITIONS, size.positions, where='positions'),
            activation=size.activation,
            norm_epsilon=BLOCK_EPSILON,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )(x, seen_bt, seen_bt if self.clip_alone else None, rope)
