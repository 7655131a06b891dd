"""A task whose model is fixed and whose adapters are trained."""

from collections.abc import Mapping
from typing import Any

import jax

from alm_jax.adapters.lora import Lora

MODEL, ADAPTERS = 'model', 'adapters'
FREEZE = (f'^{MODEL}/',)  # config.freeze of a run that trains adapters alone


class AdaptedTask:
    """Another task with parameters {'model': its own, 'adapters': LoRA's}.

    With ``FREEZE`` as config.freeze the model is neither differentiated nor changed, and has no
    moments in the optimizer.
    """

    def __init__(self, task: Any, lora: Lora):
        """``task`` has init, loss and after_update as training.step wants them."""
        self._task, self._lora = task, lora

    def init(self, rng: jax.Array, batch_spec: Mapping[str, Any]) -> tuple[Any, Any]:
        """(params, extra) of the task, and adapters that change nothing yet."""
        params, extra = self._task.init(rng, batch_spec)
        adapters = self._lora.init(jax.random.fold_in(rng, 1), params)
        return {MODEL: params, ADAPTERS: adapters}, extra

    def loss(self, params: Any, extra: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, Any]:
        """The task's, at the adapted parameters."""
        adapted = self._lora.apply(params[MODEL], params[ADAPTERS])
        return self._task.loss(adapted, extra, batch, rng)

    def after_update(self, params: Any, extra: Any, step: jax.Array) -> Any:
        """The task's, at the adapted parameters."""
        adapted = self._lora.apply(params[MODEL], params[ADAPTERS])
        return self._task.after_update(adapted, extra, step)
