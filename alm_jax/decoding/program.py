"""How a model is called while it writes, and where on a mesh its arrays lie then."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alm_jax.config import ACTIVATION_RULES


@dataclasses.dataclass(frozen=True)
class Program:
    """What programs are compiled for, beside shapes.

    Attributes:
      module: the model.
      method: of it.
      mesh: of the parameters; None is one device.
    """

    module: nn.Module
    method: str | None
    mesh: Mesh | None

    def call(self, params, ids_bt, mask_bt, cache, inputs, logits_at_bn=None):
        """(logits [b, vocabulary] at one position a row, the cache after the call)."""
        outputs = self.module.apply(
            {'params': params},
            ids_bt,
            mask_bt,
            cache=cache,
            logits_at_bn=logits_at_bn,
            method=self.method,
            **inputs,
        )
        return outputs['logits'][:, 0], outputs['cache']

    def prefill(self, params, ids_bt, mask_bt, inputs, slots: int):
        """``call`` with prompts and an empty cache of ``slots``; logits after each prompt."""
        batch, length = ids_bt.shape
        ids_bt, mask_bt, inputs = self.split((ids_bt, mask_bt, inputs))
        cache = self.split_cache(self.module.empty_cache(batch, slots))
        last = jnp.max(jnp.where(mask_bt, jnp.arange(length), 0), axis=1)
        return self.call(params, ids_bt, mask_bt, cache, inputs, last[:, None])

    @property
    def row_parts(self) -> int:
        """Into how many parts rows are split."""
        return self._parts(self._axes('batch'))

    def split(self, tree):
        """Arrays whose leading axis is the rows, split along it."""
        return jax.tree.map(lambda x: self._placed(x, self._axes('batch')), tree)

    def split_cache(self, cache):
        """A cache whose rows are split like a batch's and its heads like those of parameters."""

        def place(x, axis):
            heads = [self._axes('heads')] if x.ndim >= 4 else []
            return self._placed(x, *[()] * axis, self._axes('batch'), *heads)

        return over_rows(place, cache)

    def whole(self, tree):
        """Arrays that every device holds."""
        return jax.tree.map(self._placed, tree)

    def _placed(self, x, *axes: tuple[str, ...]):
        if self.mesh is None:
            return x
        spec = PartitionSpec(
            *(a if a and size % self._parts(a) == 0 else None for a, size in zip(axes, x.shape))
        )
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def _parts(self, axes: tuple[str, ...]) -> int:
        return math.prod(self.mesh.shape[axis] for axis in axes)

    def _axes(self, name: str) -> tuple[str, ...]:
        axes = dict(ACTIVATION_RULES)[name]
        axes = (axes,) if isinstance(axes, str) else axes
        return () if self.mesh is None else tuple(a for a in axes if a in self.mesh.shape)


def mesh_of(params) -> Mesh | None:
    """Where parameters lie, if it is on several devices."""
    sharding = jax.tree.leaves(params)[0].sharding
    known = isinstance(sharding, NamedSharding) and sharding.mesh.size > 1
    return sharding.mesh if known else None


def over_rows(f, cache):
    """A cache of ``f(array, axis of the rows)`` for each of its arrays.

    Those are the mask, [b, s], and keys and values, [b, heads, s, d] or with the layers before;
    ``index``, which is the same for all rows, stays.
    """
    return jax.tree.map(lambda x: f(x, max(x.ndim - 4, 0)) if x.ndim else x, cache)
