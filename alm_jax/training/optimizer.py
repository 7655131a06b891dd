"""AdamW over the trainable part of the parameters.

Frozen parameters are not differentiated and have no moments. Where only some layers of a stacked
leaf are frozen, the leaf is trained under a mask along its layer axes, so that its frozen layers
keep their bits.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from alm_jax.config import ConfigError, choose
from alm_jax.training import param_names


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW with a schedule, per-parameter rates and frozen parameters.

    Attributes:
      schedule: step -> learning rate, float32.
      transform: gradients -> update direction, before the learning rate.
      frozen: path -> numpy bool mask over the leaf's layer axes, for every leaf.
      frozen_dtype: dtype in which wholly frozen leaves are stored.
    """

    schedule: Callable[[jax.Array], jax.Array]
    transform: optax.GradientTransformation
    frozen: Mapping[tuple[str, ...], np.ndarray]
    frozen_dtype: jnp.dtype

    def split(self, params: Any) -> tuple[Any, Any]:
        """(trainable, frozen) trees with disjoint leaves; ``merge`` is the inverse."""
        parts: tuple[dict, dict] = ({}, {})
        for path, leaf in traverse_util.flatten_dict(params).items():
            parts[bool(self.frozen[path].all())][path] = leaf
        trainable, frozen = (traverse_util.unflatten_dict(part) for part in parts)
        return trainable, frozen

    def merge(self, trainable: Any, frozen: Any) -> Any:
        """The parameter tree of which ``split`` gave the parts."""
        flat = traverse_util.flatten_dict(trainable) | traverse_util.flatten_dict(frozen)
        return traverse_util.unflatten_dict(flat)

    def cast_frozen(self, params: Any) -> Any:
        """``params`` with the wholly frozen leaves in ``frozen_dtype``."""
        trainable, frozen = self.split(params)
        return self.merge(trainable, jax.tree.map(lambda x: x.astype(self.frozen_dtype), frozen))

    def init(self, params: Any) -> dict[str, Any]:
        """Zero moments of the trainable part of ``params``, and no update skipped."""
        trainable, _ = self.split(params)
        return {'transform': self.transform.init(trainable), 'skipped': jnp.zeros((), jnp.int32)}

    def update(
        self, gradients: Any, opt_state: dict[str, Any], trainable: Any, step: jax.Array, loss: Any
    ) -> tuple[Any, dict[str, Any], dict[str, jax.Array]]:
        """One update; skipped when the loss, a gradient or an update is not finite.

        A skipped update leaves parameters and moments at their bits and adds one to 'skipped'. The
        decision is a function of global values, so all devices take it alike.

        Returns:
          (trainable, opt_state, metrics): metrics are float32 scalars 'grad_norm' (before
          clipping), 'update_norm', 'learning_rate', and int32 'skipped', the count since the start.
        """
        gradients = self._where_trained(gradients, jax.tree.map(jnp.zeros_like, gradients))
        learning_rate = self.schedule(step)
        direction, moments = self.transform.update(gradients, opt_state['transform'], trainable)
        updates = jax.tree.map(lambda d: -learning_rate * d, direction)
        updated = self._where_trained(optax.apply_updates(trainable, updates), trainable)
        norms = {
            'grad_norm': optax.tree.norm(gradients),
            'update_norm': optax.tree.norm(updates),
        }
        finite = jnp.isfinite(loss) & jnp.isfinite(norms['grad_norm'])
        finite &= jnp.isfinite(norms['update_norm'])
        skipped = opt_state['skipped'] + (1 - finite.astype(jnp.int32))
        updated, moments = select(finite, (updated, moments), (trainable, opt_state['transform']))
        metrics = norms | {'learning_rate': learning_rate, 'skipped': skipped}
        return updated, {'transform': moments, 'skipped': skipped}, metrics

    def _where_trained(self, new: Any, old: Any) -> Any:
        """``new``, with the frozen layers of partly frozen leaves from ``old``."""

        def pick(key_path, a, b):
            mask = self.frozen[tuple(key.key for key in key_path)]
            return jnp.where(param_names.broadcast(mask, a), b, a) if mask.any() else a

        return jax.tree_util.tree_map_with_path(pick, new, old)


def select(condition: jax.Array, new: Any, old: Any) -> Any:
    """``new`` where the scalar ``condition`` holds, else ``old``; trees of one structure."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def make_optimizer(config: ConfigDict, params: Any, *, first_step: int = 0) -> Optimizer:
    """The optimizer of an experiment, or of a stage of one.

    Args:
      config: reads ``optimizer``, ``freeze``, ``steps`` and ``compute_dtype``.
      params: a parameter tree, concrete or abstract.
      first_step: at which the schedule begins.

    Raises:
      ConfigError: a regex matches no parameter, nothing is left to train, or the schedule's name
        or warm-up is wrong.
    """
    options = config.optimizer
    frozen = param_names.match(params, config.freeze, where='freeze')
    if all(mask.all() for mask in jax.tree.leaves(frozen)):
        raise ConfigError('config.freeze matches every parameter; nothing is left to train.')
    no_decay = param_names.match(params, options.no_decay, where='optimizer.no_decay')
    decay = jax.tree.map(lambda mask: np.where(mask, 0.0, options.weight_decay), no_decay)
    # A rate of zero keeps frozen layers of a trained leaf out of the update norm.
    rates = jax.tree.map(
        np.multiply, _rates(params, options.rates), jax.tree.map(np.invert, frozen)
    )
    if options.clip_norm <= 0:
        raise ConfigError(
            f'config.optimizer.clip_norm is {options.clip_norm}; it must be positive. '
            'A very large norm, such as 1e9, is no clipping.'
        )
    transform = optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.scale_by_adam(b1=options.b1, b2=options.b2, eps=options.eps),
        _decay_and_rates(_by_path(decay), _by_path(rates)),
    )
    schedule = make_schedule(options, config.steps)
    return Optimizer(
        schedule=lambda step: schedule(step - first_step),
        transform=transform,
        frozen=_by_path(frozen),
        frozen_dtype=jnp.dtype(config.compute_dtype),
    )


def make_schedule(options: ConfigDict, steps: int) -> optax.Schedule:
    """step -> learning rate: linear warm-up from zero, then the named decay to zero at ``steps``.

    With warm-up w the first step uses rate / w, so no step is lost at a rate of zero.
    """
    rate, warmup = options.learning_rate, options.warmup_steps
    if not 0 <= warmup < steps:
        raise ConfigError(
            f'config.optimizer.warmup_steps is {warmup}; it must be from 0 to below '
            f'config.steps = {steps}.'
        )
    decays = {
        'cosine': lambda: optax.cosine_decay_schedule(rate, steps - warmup),
        'linear': lambda: optax.linear_schedule(rate, 0.0, steps - warmup),
        'constant': lambda: optax.constant_schedule(rate),
    }
    decay = choose(decays, options.schedule, where='optimizer.schedule')()
    ramp = optax.linear_schedule(rate / max(warmup, 1), rate, max(warmup - 1, 1))
    return optax.join_schedules([ramp, decay], [warmup]) if warmup else decay


def _rates(params, rates) -> Any:
    """Factor arrays over layer axes: the first regex of ``rates`` that matches, else 1."""
    factors = jax.tree.map(
        lambda mask: np.ones(mask.shape), param_names.match(params, (), where='optimizer.rates')
    )
    for regex, factor in reversed(list(rates)):
        masks = param_names.match(params, [regex], where='optimizer.rates')
        factors = jax.tree.map(lambda m, f, new=factor: np.where(m, new, f), masks, factors)
    return factors


def _decay_and_rates(decay: Mapping, rates: Mapping) -> optax.GradientTransformation:
    """Decoupled weight decay, then the rate of each parameter (Loshchilov and Hutter 2019)."""

    def apply(key_path, update, param):
        path = tuple(key.key for key in key_path)
        weight = param_names.broadcast(decay[path], param).astype(np.float32)
        factor = param_names.broadcast(rates[path], param).astype(np.float32)
        return factor * (update + weight * param)

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(apply, updates, params)
    )


def _by_path(tree: Any) -> dict[tuple[str, ...], np.ndarray]:
    return traverse_util.flatten_dict(tree)
