"""Transformer blocks and their stack, scanned over the layers."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers import kv_cache
from alm_jax.models.layers.attention import MultiHeadAttention
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import LayerNorm, RmsNorm
from alm_jax.models.layers.placement import placed

# A scan keeps common subexpressions apart by itself, hence prevent_cse=False.
REMAT = {
    'none': lambda block: block,
    'block': functools.partial(nn.remat, prevent_cse=False),
    'dots': functools.partial(
        nn.remat,
        prevent_cse=False,
        policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    ),
    'offload': functools.partial(
        nn.remat,
        prevent_cse=False,
        policy=jax.checkpoint_policies.offload_dot_with_no_batch_dims('device', 'pinned_host'),
    ),
}


def _keeps_input(activation):
    """The activation, whose gradient is made from its input alone.

    Otherwise three arrays as large as the input are kept for an exact GELU; on a CPU keeping them
    takes longer than computing them again (6 layers of 512: 201 of 974 MB, 0.97 of the time).
    """
    return jax.checkpoint(activation, prevent_cse=False)


ACTIVATIONS = {
    'gelu': _keeps_input(functools.partial(jax.nn.gelu, approximate=False)),
    'gelu_tanh': _keeps_input(functools.partial(jax.nn.gelu, approximate=True)),
    'quick_gelu': _keeps_input(lambda x: x * jax.nn.sigmoid(1.702 * x)),
    'relu': jax.nn.relu,
    'silu': _keeps_input(jax.nn.silu),
}
NORMS = {
    'layer': LayerNorm,
    'layer_no_bias': functools.partial(LayerNorm, use_bias=False),
    'rms': RmsNorm,
    'rms_from_one': functools.partial(RmsNorm, offset=1.0),
}


class Mlp(nn.Module):
    """Dense ``up`` to ``width``, activation, Dense ``down`` back to the input size.

    With ``gated``, the activation of Dense ``gate`` multiplies ``up`` (SwiGLU and GeGLU, Shazeer
    2020, https://arxiv.org/abs/2002.05202).
    """

    width: int
    activation: str = 'gelu'
    gated: bool = False
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        """[..., d] -> [..., d] in ``dtype``."""

        def dense(features, name):
            return Dense(features, use_bias=self.use_bias, dtype=self.dtype, name=name)

        activation = ACTIVATIONS[self.activation]
        y = dense(self.width, 'up')(x)
        y = activation(dense(self.width, 'gate')(x)) * y if self.gated else activation(y)
        if y.ndim == 3:
            y = placed(y, 'batch', 'length', 'mlp')
        return dense(x.shape[-1], 'down')(y)


class TransformerBlock(nn.Module):
    """Attention and MLP with residuals; norms before them (ViT) or after the sums (BERT).

    Parameters: ``attn``, ``attn_norm``, ``mlp``, ``mlp_norm``; with ``cross`` also ``cross_attn``
    and ``cross_attn_norm`` between them.

    Attributes:
      heads: attention heads.
      mlp_width: hidden size of the MLP.
      post_norm: False is ViT's order x + f(norm(x)); True is BERT's norm(x + f(x)).
      residual_scale: with BERT's order, norm(residual_scale * x + f(x)) (DeepNorm, Wang et al.
        2022, https://arxiv.org/abs/2203.00555; BEATs).
      sandwich: with ViT's order, x + norm(f(norm(x))) (Gemma 2), the outer ones being
        ``attn_post_norm``, ``mlp_post_norm`` and ``cross_attn_post_norm``.
      layer_scale: with ViT's order, where the parameters ``attn_scale``, ``mlp_scale``, ... [d]
        start: x + scale * f(norm(x)) (Touvron et al. 2021, https://arxiv.org/abs/2103.17239;
        Mimi). None is no such scales.
      norm: 'layer', 'layer_no_bias', 'rms', or 'rms_from_one' (Gemma).
      norm_epsilon: of the norms.
      unnormed: of 'attn', 'cross_attn' and 'mlp', those that have no norm before or after them
        (ModernBERT's first attention).
      activation: of the MLP, a key of ACTIVATIONS.
      gated: whether the MLP has a gate.
      mlp_bias: whether the MLP has biases.
      attention: further attributes of MultiHeadAttention, for both attentions but for ``causal``
        and ``window``, which are the first one's.
      cross: whether there is attention to a memory.
      dropout: rate on the output of attention and of the MLP.
      train: whether dropout is on (it then needs the rng stream 'dropout').
      dtype: compute and result dtype.
    """

    heads: int
    mlp_width: int
    post_norm: bool = False
    residual_scale: float = 1.0
    sandwich: bool = False
    layer_scale: float | None = None
    norm: str = 'layer'
    norm_epsilon: float = 1e-6
    unnormed: tuple[str, ...] = ()
    activation: str = 'gelu'
    gated: bool = False
    mlp_bias: bool = True
    attention: Mapping[str, Any] = FrozenDict()
    cross: bool = False
    dropout: float = 0.0
    train: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_btd,
        mask_bt=None,
        bias_bhts=None,
        rope_btd=None,
        memory_bsd=None,
        memory_mask_bs=None,
        cache=None,
    ):
        """One block, in the form that nn.scan carries.

        Args:
          x_btd: [b, t, d].
          mask_bt: bool [b, t], positions that may be attended to; None is all. See
            MultiHeadAttention for other masks.
          bias_bhts, rope_btd: see MultiHeadAttention.
          memory_bsd, memory_mask_bs: what ``cross`` attends to, [b, s, e] and bool [b, s].
          cache: (index, {'attn': {'key', 'value'}, 'cross_attn': the same or left out}), one
            layer's of ``layers.kv_cache``. ``mask_bt`` is then over its slots, and the memory is
            needed only in the first call.

        Returns:
          ([b, t, d], the same); with a cache ([b, t, d], (the same, keys and values made in this
          call: {'attn': {'key', 'value'}} and with ``cross`` 'cross_attn')).
        """
        drop = nn.Dropout(self.dropout, deterministic=not self.train)

        def residual(name, x, f):
            norm = NORMS[self.norm](self.norm_epsilon, name=f'{name}_norm')
            if name in self.unnormed:
                norm = _unchanged
            if self.post_norm:
                return norm(self.residual_scale * x + drop(f(x)))
            y = f(norm(x))
            if self.sandwich:
                y = NORMS[self.norm](self.norm_epsilon, name=f'{name}_post_norm')(y)
            if self.layer_scale is not None:
                start = nn.initializers.constant(self.layer_scale)
                y = y * self.param(f'{name}_scale', start, (y.shape[-1],)).astype(y.dtype)
            return x + drop(y)

        made = {}
        x_btd = placed(x_btd, 'batch', 'length', None)

        def attention(name, **options):
            options = {**self.attention, **options}
            return MultiHeadAttention(self.heads, dtype=self.dtype, name=name, **options)

        def attend(module, x, mask, cached, **inputs):
            def f(x):
                if cached is None:
                    return module(x, mask, **inputs)
                y, made[module.name] = module(x, mask, cache=cached, **inputs)
                return y

            return residual(module.name, x, f)

        own, others = None, None
        if cache is not None:
            index, slots = cache
            own, others = {**slots['attn'], 'index': index}, slots.get('cross_attn', {})
        x_btd = attend(
            attention('attn'), x_btd, mask_bt, own, bias_bhts=bias_bhts, rope_btd=rope_btd
        )
        if self.cross:
            cross = attention('cross_attn', causal=False, window=None)
            x_btd = attend(cross, x_btd, memory_mask_bs, others, memory_bsd=memory_bsd)
        mlp = Mlp(
            self.mlp_width, self.activation, self.gated, self.mlp_bias, self.dtype, name='mlp'
        )
        x_btd = residual('mlp', x_btd, mlp)
        return x_btd, (x_btd if cache is None else (x_btd, made))


def _unchanged(x):
    return x


LAYERS = 'layers'
SHARED_INPUTS = (nn.broadcast,) * 5  # of TransformerBlock, after x_btd
CACHED = (*SHARED_INPUTS, (nn.broadcast, 0))


def transformer_stack(
    depth: int,
    *,
    remat: str = 'none',
    kind: type[nn.Module] = TransformerBlock,
    in_axes: Any = nn.broadcast,
    unrolled: bool = False,
    **block,
) -> Callable[..., tuple[jax.Array, Any]]:
    """``depth`` TransformerBlocks as one scanned module named 'layers'.

    Inside a compact method: ``x_btd, hidden_lbtd = transformer_stack(...)(x_btd, mask_bt)``; the
    block's further inputs follow, the same for all layers.
    Every parameter has a leading axis of size ``depth`` and lives directly under ``layers`` of the
    calling module, so its canonical name is ``layers/3/attn/query/kernel``.

    Args:
      depth: number of blocks.
      remat: 'none' keeps activations, 'block' keeps block inputs and recomputes the rest, 'dots'
        keeps also what products with parameters give, and recomputes the cheap rest, 'offload' is
        'dots' that keeps them in the memory of the host. A CPU's is the only one it has: there
        'offload' is 'dots'.
      kind: of block: (x_btd, *inputs) -> (x_btd, what is stacked over the layers).
      in_axes: as nn.scan has it; all inputs are shared by default. CACHED is for calls with all of
        TransformerBlock's inputs, whose last is the cache's (index, layers).
      unrolled: a loop over modules ``layers_0``, ``layers_1``, ... instead, for the parameters
        that ``unroll`` makes. A scan copies each kernel out of its stack before it is used, which
        for one token on a CPU takes twice as long as using it.
      **block: attributes of the block.

    Raises:
      ConfigError: for another ``remat``.
    """
    wrap = config_lib.choose(REMAT, remat, where='model.*.remat')
    if unrolled:
        return functools.partial(_loop, depth, wrap(kind), in_axes, block)
    scanned = nn.scan(
        wrap(kind),
        variable_axes={'params': 0, 'batch_stats': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=in_axes,
        length=depth,
    )
    return scanned(name=LAYERS, **block)


def _loop(depth, kind, in_axes, block, x_btd, *inputs):
    """What the scan does, layer by layer; in a compact method."""
    axes = (in_axes,) * len(inputs) if in_axes is nn.broadcast else in_axes
    stacked = []
    for layer in range(depth):
        module = kind(name=f'{LAYERS}_{layer}', **block)
        x_btd, y = module(x_btd, *_of_layer(axes, inputs, layer))
        stacked.append(y)
    return x_btd, jax.tree.map(kv_cache.join, *stacked, is_leaf=kv_cache.is_apart)


def _of_layer(axes, inputs, layer: int):
    if axes is nn.broadcast:
        return inputs
    if isinstance(axes, tuple):
        return tuple(_of_layer(a, i, layer) for a, i in zip(axes, inputs))
    # A list is of a cache that has its layers apart.
    return jax.tree.map(lambda x: x[layer], inputs, is_leaf=lambda x: isinstance(x, list))


def unroll(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a module with a stack for the same module with ``unrolled``."""
    rest = {name: leaf for name, leaf in params.items() if name != LAYERS}
    depth = jax.tree.leaves(params[LAYERS])[0].shape[0]
    return rest | {f'{LAYERS}_{i}': _of_layer(0, params[LAYERS], i) for i in range(depth)}
