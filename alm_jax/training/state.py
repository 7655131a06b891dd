"""What a training step takes and gives back."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from alm_jax.training.optimizer import Optimizer


@flax.struct.dataclass
class TrainState:
    """Everything a run needs to go on; a pytree.

    Attributes:
      step: int32 scalar, steps taken; one whose update was skipped counts.
      data_step: int32 scalar, batches consumed; the next batch and its rng are functions of it.
      params: parameter tree.
      opt_state: moments of the trainable part and the count of skipped updates.
      extra: other variable collections by name, such as 'batch_stats'; may be empty.
    """

    step: jax.Array
    data_step: jax.Array
    params: Any
    opt_state: Any
    extra: Any


def create(params: Any, extra: Any, optimizer: Optimizer) -> TrainState:
    """The state before the first step; frozen parameters take the optimizer's ``frozen_dtype``."""
    params = optimizer.cast_frozen(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        data_step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        extra=extra,
    )


def abstract(
    init: Callable[[], tuple[Any, Any]],
    optimizer: Optimizer,
    sharding: jax.sharding.Sharding | None = None,
) -> TrainState:
    """The shapes and dtypes of the state, with nothing computed.

    Args:
      init: gives (params, extra), such as ``lambda: task.init(rng, batch_spec)``.
      sharding: of all leaves; where they differ see ``param_sharding``.
    """
    shapes = jax.eval_shape(lambda: create(*init(), optimizer))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
