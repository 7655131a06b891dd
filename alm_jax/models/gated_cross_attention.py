"""Cross-attention blocks between the layers of a language model that stays as it is.

Flamingo (Alayrac et al. 2022, arXiv:2204.14198, section 3.1.2), Audio Flamingo 1 and 2
(arXiv:2402.01831, arXiv:2503.03983): a gate of each block starts at zero, and so does what it adds.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.config import ConfigError
from alm_jax.models.layers.attention import MultiHeadAttention
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.rotary import Rope
from alm_jax.models.layers.transformer import LAYERS, REMAT, Mlp, transformer_stack
from alm_jax.models.perceiver import Perceiver

NORM_EPSILON = 1e-5
ROPE = Rope(base=4096.0)  # of Audio Flamingo 2's layers over the memory


class GatedBlock(nn.Module):
    """x + tanh(gate) attention(norm(x), memory), then x + tanh(gate) mlp(norm(x)).

    Parameters: ``attn_norm``, ``attn``, ``attn_gate`` [], ``mlp_norm``, ``mlp``, ``mlp_gate`` [];
    no biases in ``attn`` and ``mlp``.
    """

    heads: int
    head_dim: int
    mlp_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd, memory_bsd, seen_bts, cache=None):
        """One block.

        Args:
          x_btd: [b, t, d].
          memory_bsd: [b, s, e].
          seen_bts: bool [b, t, s], what each position attends to; where that is nothing, attention
            adds nothing.
          cache: None, {} to get keys and values, or these, see MultiHeadAttention.

        Returns:
          ([b, t, d], {'key', 'value'} made in this call with an empty cache, else {}).
        """

        def added(name, f):
            gate = jnp.tanh(self.param(f'{name}_gate', nn.initializers.zeros, ()))
            norm = LayerNorm(NORM_EPSILON, name=f'{name}_norm')
            return x_btd + gate.astype(x_btd.dtype) * f(norm(x_btd))

        made = {}

        def attend(x):
            attention = MultiHeadAttention(
                self.heads, head_dim=self.head_dim, biases=(), dtype=self.dtype, name='attn'
            )
            y = attention(x, seen_bts, memory_bsd=memory_bsd, cache=cache)
            if cache is not None:
                y, new = y
                made.update(new)
            return jnp.where(seen_bts.any(axis=2)[..., None], y, 0)

        x_btd = added('attn', attend)
        mlp = Mlp(self.mlp_width, use_bias=False, dtype=self.dtype, name='mlp')
        return added('mlp', mlp), made


class Gated(NamedTuple):
    """What ``Decoder`` needs for gated blocks between its layers.

    Attributes:
      block: of which ``params`` are, without a parent.
      params: the blocks', stacked on a first axis; one stands before every depth / blocks layers.
      memory_bsd: [b, s, e]; not needed when the cache has been given one.
      seen_bts: bool [b, t, s], see GatedBlock.
    """

    block: GatedBlock
    params: Any
    memory_bsd: jax.Array | None
    seen_bts: jax.Array


class GatedCrossAttention(nn.Module):
    """A connector whose vectors are no part of the text but a memory of gated blocks.

    In the text one vector stands for a clip, ``marker``, and from there on the clip is seen.

    Parameters: ``memory`` (transformer layers or a Perceiver), ``marker`` [features], ``layers``
    (of each GatedBlock, see transformer_stack).

    Attributes:
      features: width of the language model.
      decoder_depth: its layers.
      every: one block stands before so many of them.
      heads, head_dim: of the blocks.
      mlp_width: of the blocks; None is four times ``features``.
      depth, memory_heads, memory_mlp_width: of the layers over the memory of one clip, each vector
        attending to all.
      latents: vectors that a clip becomes by a Perceiver of that depth instead; 0 is all there are.
      remat: of the blocks and the layers over the memory, see transformer_stack.
      dtype: compute dtype; norms and softmax are float32.
    """

    features: int
    decoder_depth: int
    every: int = 1
    heads: int = 8
    head_dim: int = 64
    mlp_width: int | None = None
    depth: int = 3
    memory_heads: int = 8
    memory_mlp_width: int = 2048
    latents: int = 0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    in_sequence = False

    def __post_init__(self):
        super().__post_init__()
        if self.decoder_depth % self.every:
            raise ConfigError(
                f'config.model.connector.every is {self.every}, which does not divide the '
                f'{self.decoder_depth} layers of the decoder.'
            )

    @nn.compact
    def __call__(self, x_bnd, mask_bn):
        """([b, n, e], bool [b, n]) -> the memory, [b, m, e], and which of it counts."""
        self.param('marker', nn.initializers.normal(0.02), (self.features,))
        self.param(LAYERS, self._start, x_bnd.shape[-1])
        if self.latents:
            resampler = Perceiver(
                None,
                self.latents,
                self.depth,
                self.memory_heads,
                x_bnd.shape[-1] // self.memory_heads,
                self.memory_mlp_width,
                remat=self.remat,
                dtype=self.dtype,
                name='memory',
            )
            return resampler(x_bnd, mask_bn)
        layers = _SelfAttention(
            self.depth,
            self.memory_heads,
            self.memory_mlp_width,
            self.remat,
            self.dtype,
            name='memory',
        )
        return layers(x_bnd, mask_bn), mask_bn

    def num_vectors(self, num_tokens):
        """How often a clip stands in the text: once, if anything of it counts."""
        return 1 * (num_tokens > 0)

    def marker(self) -> jax.Array:
        """float32 [features], the vector that stands for a clip."""
        return self.get_variable('params', 'marker')

    def gated(self, memory_bsd, seen_bts) -> Gated:
        """The blocks with what they attend to, see Gated."""
        params = self.get_variable('params', LAYERS)
        return Gated(self._block(), params, memory_bsd, seen_bts)

    def _block(self) -> GatedBlock:
        width = self.mlp_width or 4 * self.features
        return GatedBlock(self.heads, self.head_dim, width, self.dtype, parent=None)

    def _start(self, rng, memory_width: int):
        """The blocks' first parameters, stacked."""

        def one(key):
            x, memory = jnp.zeros((1, 1, self.features)), jnp.zeros((1, 1, memory_width))
            return self._block().init(key, x, memory, jnp.ones((1, 1, 1), bool))['params']

        return jax.vmap(one)(jax.random.split(rng, self.decoder_depth // self.every))


class _SelfAttention(nn.Module):
    depth: int
    heads: int
    mlp_width: int
    remat: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_bnd, mask_bn):
        stack = transformer_stack(
            self.depth,
            remat=self.remat,
            heads=self.heads,
            mlp_width=self.mlp_width,
            norm_epsilon=NORM_EPSILON,
            dtype=self.dtype,
        )
        n, d = x_bnd.shape[1:]
        rope = ROPE.cos_sin(jnp.arange(n)[None], d // self.heads)
        x, _ = stack(x_bnd.astype(self.dtype), mask_bn, None, rope)
        return LayerNorm(NORM_EPSILON, name='norm')(x)


def seen_clips(here_bt, segments_bt, present_bk):
    """bool [b, t, k]: the clips that each position sees: those marked so far in its segment.

    Args:
      here_bt: bool [b, t], where clips stand, in their order.
      segments_bt: int [b, t], or None for one segment.
      present_bk: bool [b, k], clips that there are.
    """
    marked_bt = jnp.cumsum(here_bt, axis=1)
    before_bt = jnp.zeros_like(marked_bt)
    if segments_bt is not None:
        first = jnp.diff(segments_bt, axis=1, prepend=segments_bt[:, :1]) != 0
        before_bt = jax.lax.cummax(jnp.where(first, marked_bt - here_bt, 0), axis=1)
    number_bk = jnp.cumsum(present_bk, axis=1) - 1
    numbers = number_bk[:, None]
    between = (before_bt[..., None] <= numbers) & (numbers < marked_bt[..., None])
    return between & present_bk[:, None]


class _Group(nn.Module):
    """A gated block, then ``every`` layers of the decoder."""

    every: int
    block: Mapping[str, Any]  # GatedBlock's attributes
    layer: Mapping[str, Any]  # what transformer_stack makes the layers of
    remat: str

    @nn.compact
    def __call__(self, x_btd, memory_bsd, seen_bts, kinds, index, own, params, cached):
        block = REMAT[self.remat](GatedBlock)(**self.block, parent=None)
        x, made = block.apply({'params': params}, x_btd, memory_bsd, seen_bts, cached)
        stack = transformer_stack(self.every, remat=self.remat, **self.layer)
        x, hidden = stack(x, kinds, index, own)
        return x, (hidden, made)


def gated_stack(gated: Gated, depth: int, /, *, remat: str = 'none', **layer):
    """``transformer_stack`` of a decoder with gated blocks between: the same parameters.

    Args:
      gated: see Gated.
      depth: layers of the decoder.
      remat, **layer: see ``transformer_stack``.

    Returns:
      A function of the stack's (x_btd, kinds, index, own), and of the blocks' cache, which is
      None, {} or {'key', 'value'}, stacked. It gives the stack's two results and the new keys and
      values.
    """
    groups = len(jax.tree.leaves(gated.params)[0])
    every = depth // groups

    def split(tree):
        return jax.tree.map(lambda leaf: leaf.reshape(groups, every, *leaf.shape[1:]), tree)

    def join(tree):
        return jax.tree.map(lambda leaf: leaf.reshape(depth, *leaf.shape[2:]), tree)

    scanned = nn.scan(
        _Group,
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(nn.broadcast,) * 4 + (0, 0, 0),
        length=groups,
    )
    mapped = nn.map_variables(
        scanned,
        'params',
        trans_in_fn=lambda tree: {name: {LAYERS: split(own)} for name, own in tree.items()},
        trans_out_fn=lambda tree: {name: join(own[LAYERS]) for name, own in tree.items()},
        init=True,
    )
    block = gated.block
    names = ('heads', 'head_dim', 'mlp_width', 'dtype')
    attributes = FrozenDict({name: getattr(block, name) for name in names})

    def stack(x_btd, kinds, index, own, cached):
        groups = mapped(every, attributes, FrozenDict(layer), remat, name=LAYERS)
        inputs = (gated.memory_bsd, gated.seen_bts, kinds, index, split(own))
        x, (hidden, made) = groups(x_btd, *inputs, gated.params, cached)
        return x, join(hidden), made

    return stack
