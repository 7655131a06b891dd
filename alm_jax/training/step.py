"""The training step: one jitted, donated function from (state, batch) to (state, metrics)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from alm_jax.training import micro_batches as micro_batches_lib
from alm_jax.training import padding, sharding
from alm_jax.training.optimizer import Optimizer, select
from alm_jax.training.state import TrainState

TrainStep = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    task: Any,
    optimizer: Optimizer,
    *,
    seed: int,
    mesh: Mesh,
    placement: Any = None,
    micro_batches: int = 1,
) -> TrainStep:
    """The jitted step; the state it is given is donated, so its buffers are gone afterwards.

    Args:
      task: see ``alm_jax.tasks``.
      seed: of dropout and augmentation; the rng of a step is ``fold_in(key(seed), data_step)``, so
        it is the same on any number of devices and after a restart.
      placement: of the state, from ``param_sharding.of_state``; None is a copy on every device.
      micro_batches: into how many parts a batch goes, one after another.

    Returns:
      ``(state, batch) -> (state, metrics)``. Metrics are scalars: the task's own, 'loss',
      'grad_norm', 'update_norm', 'param_norm' (of the trainable part), 'learning_rate', and
      'skipped', the updates not taken so far because a loss or gradient was not finite, and what
      ``padding.shares`` tells of the batch. A skipped step leaves params, moments and extra as they
      were and still counts as a step, so that one bad batch neither stops a run nor is met again.

    Raises:
      ConfigError: the task cannot do with micro-batches.
    """
    gradient = micro_batches_lib.gradient_of(task, micro_batches)

    def train_step(state, batch):
        rng = jax.random.fold_in(jax.random.key(seed), state.data_step)
        trainable, frozen = optimizer.split(state.params)

        def params_of(trainable):
            return optimizer.merge(trainable, frozen)

        (loss, (metrics, extra)), gradients = gradient(
            params_of, trainable, state.extra, batch, rng
        )
        with jax.named_scope('optimizer'):
            updated, opt_state, numbers = optimizer.update(
                gradients, state.opt_state, trainable, state.step, loss
            )
        params = optimizer.merge(updated, frozen)
        extra = task.after_update(params, extra, state.step + 1)
        taken = numbers['skipped'] == state.opt_state['skipped']
        metrics = {**metrics, **numbers, **padding.shares(batch), 'loss': loss}
        metrics['param_norm'] = optax.tree.norm(updated)
        new_state = TrainState(
            step=state.step + 1,
            data_step=state.data_step + 1,
            params=params,
            opt_state=opt_state,
            extra=select(taken, extra, state.extra),
        )
        return new_state, metrics

    everywhere = sharding.replicated(mesh)
    placement = everywhere if placement is None else placement
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(placement, sharding.batch_sharding(mesh)),
        out_shardings=(placement, everywhere),
    )


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """``(state, batch) -> (state, metrics)`` for the kinds of batch that are known.

    A batch of other shapes is a RuntimeError, for hosts that compile at different steps wait for
    each other in the dark.

    Attributes:
      programs: by ``shapes`` of the batch.
    """

    programs: Mapping[Any, jax.stages.Compiled]

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        found = self.programs.get(shapes(batch))
        if found is None:
            raise RuntimeError(f'no step was compiled for a batch of {dict(shapes(batch))}.')
        return found(state, batch)


def compile_shapes(
    train_step: Any, state: TrainState, specs: Sequence[Mapping[str, Any]], mesh: Mesh
) -> CompiledStep:
    """The step compiled for every batch that will come, before the first one.

    Args:
      train_step: from ``make_train_step``.
      state: arrays or their shapes.
      specs: for each kind of batch, its arrays' global shapes and dtypes by name.
    """
    rows = sharding.batch_sharding(mesh)
    compiled = {}
    for spec in specs:
        batch = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=rows)
            for name, array in spec.items()
        }
        compiled[shapes(spec)] = train_step.lower(state, batch).compile()
    return CompiledStep(compiled)


def shapes(batch: Mapping[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """What kind of batch this is: the shape of each array by name."""
    return tuple(sorted((name, tuple(array.shape)) for name, array in batch.items()))
