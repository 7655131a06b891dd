"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751) behind chosen dense layers.

bottleneck = Bottleneck(targets=(r'attn/out/kernel', r'mlp/down/kernel'), width=16)
adapters = bottleneck.init(rng, params)
with bottleneck.inserted():
    outputs = module.apply({'params': bottleneck.join(params, adapters)}, ...)
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from alm_jax import config as config_lib
from alm_jax.adapters import selection
from alm_jax.models.layers.transformer import ACTIVATIONS
from alm_jax.training import param_names

PLACE = 'bottleneck'  # of an adapter's parameters, beside the kernel
DOWN, BIAS, UP = 'down', 'down_bias', 'up'
UP_BIAS = 'up_bias'


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """y + up(activation(down(y))) for the output y of every dense layer that is chosen.

    Behind the last layer of attention and of the MLP this is the original's place, inside the
    residual. In a stack every layer has parameters; those that no regex names stay the identity.

    Attributes:
      targets: regexes searched in canonical names; see ``selection.kernels``.
      width: of the bottleneck.
      activation: a key of ACTIVATIONS.
    """

    targets: tuple[str, ...]
    width: int = 64
    activation: str = 'gelu'

    def init(self, rng: jax.Array, params: Any) -> Any:
        """Adapters that change nothing yet: ``up`` is zero. A tree of the model's own form.

        Raises:
          ConfigError: see ``selection.kernels``; an unknown activation.
        """
        config_lib.choose(ACTIVATIONS, self.activation, where='adapters.activation')
        leaves = traverse_util.flatten_dict(params)
        made = {}
        for number, path in enumerate(sorted(selection.kernels(params, self.targets))):
            stack, d = leaves[path].shape[:-2], leaves[path].shape[-1]
            key = jax.random.fold_in(rng, number)
            made[path] = {
                DOWN: jax.random.normal(key, (*stack, d, self.width)) * d**-0.5,
                BIAS: jnp.zeros((*stack, self.width)),
                UP: jnp.zeros((*stack, self.width, d)),
                UP_BIAS: jnp.zeros((*stack, d)),
            }
        return selection.by_leaf(made)

    def join(self, params: Any, adapters: Any) -> Any:
        """The parameters with those of the adapters beside their kernels."""
        leaves = traverse_util.flatten_dict(params)
        for path, kernel in selection.kernels(params, self.targets).items():
            own = dict(selection.of_leaf(adapters, path))
            if not kernel.whole:  # no gradient for the layers that are not adapted
                mask = np.zeros(leaves[path].shape[: path.count(param_names.LAYERS)], np.float32)
                mask[kernel.layers] = 1
                own[UP] = own[UP] * param_names.broadcast(mask, own[UP])
                own[UP_BIAS] = own[UP_BIAS] * param_names.broadcast(mask, own[UP_BIAS])
            leaves |= {(*path[:-1], f'{PLACE}_{name}'): array for name, array in own.items()}
        return traverse_util.unflatten_dict(leaves)

    @contextlib.contextmanager
    def inserted(self) -> Iterator[None]:
        """Within it, modules called on ``join``'s parameters have the adapters."""

        def adapted(call, args, kwargs, context):
            y = call(*args, **kwargs)
            module = context.module
            if context.method_name != '__call__' or module.scope is None:
                return y
            if not module.scope.has_variable('params', f'{PLACE}_{DOWN}'):
                return y
            own = {
                name: module.scope.get_variable('params', f'{PLACE}_{name}').astype(y.dtype)
                for name in (DOWN, BIAS, UP, UP_BIAS)
            }
            h = ACTIVATIONS[self.activation](y @ own[DOWN] + own[BIAS])
            return y + h @ own[UP] + own[UP_BIAS]

        with nn.intercept_methods(adapted):
            yield
