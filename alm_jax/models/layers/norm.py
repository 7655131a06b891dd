"""Normalisation layers: statistics and arithmetic in float32 whatever the compute dtype."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

    Parameters ``scale`` and, with ``use_bias``, ``bias`` [d] are float32; the result has the dtype
    of the input.
    """

    epsilon: float = 1e-6
    use_bias: bool = True

    @nn.compact
    def __call__(self, x):
        """[..., d] -> [..., d]."""
        scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.epsilon)
        y = y * scale
        if self.use_bias:
            y = y + self.param('bias', nn.initializers.zeros, (x.shape[-1],))
        return y.astype(x.dtype)


class RmsNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

    Parameter ``scale`` [d] is float32; the result has the dtype of the input.

    Attributes:
      epsilon: added to the mean square.
      offset: added to ``scale``; 1 in Gemma, whose stored scale starts at 0.
    """

    epsilon: float = 1e-6
    offset: float = 0.0

    @nn.compact
    def __call__(self, x):
        """[..., d] -> [..., d]."""
        start = nn.initializers.constant(1.0 - self.offset)
        scale = self.param('scale', start, (x.shape[-1],)) + self.offset
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.epsilon)
        return (y * scale).astype(x.dtype)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018, https://arxiv.org/abs/1803.08494) over whole sequences.

    Statistics are of a group's channels at all positions between the batch and the channel axis,
    padding included unless there is a mask. Parameters ``scale`` and ``bias`` [c] are float32; the
    result has the dtype of the input.
    """

    groups: int = 1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, mask=None):
        """[b, ..., c] -> [b, ..., c]; c is a multiple of the groups.

        Args:
          mask: bool [b, ...], the positions that count; the result is zero at the others.
        """
        scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
        bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
        y = x.astype(jnp.float32).reshape(x.shape[0], -1, self.groups, x.shape[-1] // self.groups)
        where = None if mask is None else mask.reshape(x.shape[0], -1, 1, 1)
        y = y - jnp.mean(y, axis=(1, 3), keepdims=True, where=where)
        variance = jnp.mean(jnp.square(y), axis=(1, 3), keepdims=True, where=where)
        y = (y * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape) * scale + bias
        if mask is not None:
            y = jnp.where(mask[..., None], y, 0)
        return y.astype(x.dtype)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with stored statistics that training never updates.

    ``mean`` and ``var`` [c] float32 live in the collection 'batch_stats' (0 and 1 until loaded);
    the parameters are ``bias`` [c] and, with ``use_scale``, ``scale`` [c] (YAMNet has none).
    """

    epsilon: float
    use_scale: bool = False

    @nn.compact
    def __call__(self, x):
        """[..., c] -> [..., c] in the dtype of the input."""
        shape = (x.shape[-1],)
        mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, jnp.float32).value
        var = self.variable('batch_stats', 'var', jnp.ones, shape, jnp.float32).value
        bias = self.param('bias', nn.initializers.zeros, shape)
        scale = jax.lax.rsqrt(var + self.epsilon)
        if self.use_scale:
            scale = scale * self.param('scale', nn.initializers.ones, shape)
        return (x.astype(jnp.float32) * scale + (bias - mean * scale)).astype(x.dtype)
