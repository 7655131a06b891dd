"""LoRA (Hu et al. 2021, arXiv:2106.09685) and DoRA (Liu et al. 2024, arXiv:2402.09353).

lora = Lora(targets=(r'attn/(query|value)/kernel',), rank=8)
adapters = lora.init(rng, params)
outputs = module.apply({'params': lora.apply(params, adapters)}, ...)   # inside jit and grad
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from alm_jax.adapters import selection
from alm_jax.adapters.selection import Kernel, Path

A, B, MAGNITUDE = 'lora_a', 'lora_b', 'magnitude'


@dataclasses.dataclass(frozen=True)
class Lora:
    """A low-rank change of chosen kernels: W + scale * A B, or with DoRA M (W + scale * A B) / N.

    N is the Euclidean norm of each column (output) of what is divided, M a learned one; the
    gradient takes N as a constant (DoRA, section 4.3). Adapters are a tree of the model's own form
    with 'lora_a' [in, rank], 'lora_b' [rank, out] and with DoRA 'magnitude' [out] in the place of
    a kernel, float32; in a stack with a leading axis of the adapted layers.

    Attributes:
      targets: regexes searched in canonical names; see ``selection.kernels``.
      rank: of the change.
      alpha: scale is alpha / rank.
      dora: whether columns have a learned magnitude.
      rank_stabilised: scale is alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732).
    """

    targets: tuple[str, ...]
    rank: int = 8
    alpha: float = 8.0
    dora: bool = False
    rank_stabilised: bool = False

    @property
    def scale(self) -> float:
        """Of the product A B."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def init(self, rng: jax.Array, params: Any) -> Any:
        """Adapters that change nothing yet: A uniform as torch's Linear, B zero.

        Raises:
          ConfigError: see ``selection.kernels``.
        """
        kernels, leaves = self._kernels(params)
        made = {}
        for number, (path, kernel) in enumerate(sorted(kernels.items())):
            fan_in, fan_out = kernel.shape
            bound = fan_in**-0.5
            key = jax.random.fold_in(rng, number)
            shape = (*kernel.count, fan_in, self.rank)
            made[path] = {
                A: jax.random.uniform(key, shape, minval=-bound, maxval=bound),
                B: jnp.zeros((*kernel.count, self.rank, fan_out)),
            }
            if self.dora:
                made[path][MAGNITUDE] = _norms(_wide(kernel.take(leaves[path])))
        return selection.by_leaf(made)

    def apply(self, params: Any, adapters: Any) -> Any:
        """The parameters with the adapters' change, computed in float32, in their own dtypes."""
        return self._map(params, adapters, self._changed)

    def merge(self, params: Any, adapters: Any) -> tuple[Any, Any]:
        """(``apply``, what ``unmerge`` needs: with DoRA the norms N, else {})."""
        if not self.dora:
            return self.apply(params, adapters), {}
        kernels, leaves = self._kernels(params)
        norms = {}
        for path, kernel in kernels.items():
            own = selection.of_leaf(adapters, path)
            norms[path] = _norms(_wide(kernel.take(leaves[path])) + self._product(own))
        return self.apply(params, adapters), selection.by_leaf(norms)

    def unmerge(self, merged: Any, adapters: Any, norms: Any) -> Any:
        """The parameters before ``merge``, but for rounding.

        A float32 kernel differs from the original by at most 2 ** -21 of the largest value of W and
        W + scale * A B; what was not adapted keeps its bits. The bits of adapted kernels, and those
        of half precision, come back only from a copy.
        """
        back = functools.partial(self._unchanged, norms)
        return self._map(merged, adapters, back)

    def _product(self, own: Any) -> jax.Array:
        return self.scale * jnp.matmul(own[A], own[B], precision=jax.lax.Precision.HIGHEST)

    def _changed(self, path: Path, kernel: jax.Array, own: Any) -> jax.Array:
        changed = kernel + self._product(own)
        if not self.dora:
            return changed
        norms = jax.lax.stop_gradient(_norms(changed))
        return changed * (own[MAGNITUDE] / norms)[..., None, :]

    def _unchanged(self, norms: Any, path: Path, kernel: jax.Array, own: Any) -> jax.Array:
        if self.dora:
            kernel = kernel * (selection.of_leaf(norms, path) / own[MAGNITUDE])[..., None, :]
        return kernel - self._product(own)

    def _kernels(self, params: Any) -> tuple[dict[Path, Kernel], dict[Path, jax.Array]]:
        return selection.kernels(params, self.targets), traverse_util.flatten_dict(params)

    def _map(self, params: Any, adapters: Any, change) -> Any:
        kernels, leaves = self._kernels(params)
        for path, kernel in kernels.items():
            own = selection.of_leaf(adapters, path)
            new = change(path, _wide(kernel.take(leaves[path])), own)
            leaves[path] = kernel.put(leaves[path], new)
        return traverse_util.unflatten_dict(leaves)


def _wide(kernel: jax.Array) -> jax.Array:
    return kernel.astype(jnp.float32)


def _norms(kernel: jax.Array) -> jax.Array:
    """Of the columns, [..., out]."""
    return jnp.linalg.norm(kernel, axis=-2)
