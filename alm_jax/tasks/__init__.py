"""A task binds a model, its objective, the device front end and predictors."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from alm_jax.config import choose
from alm_jax.tasks.contrastive import ContrastiveTask
from alm_jax.text.tokenizer import Tokenizer

TASKS = {'contrastive': ContrastiveTask}


def build_task(
    config: ConfigDict, *, tokenizer: Tokenizer | None = None, mesh: Mesh | None = None
) -> ContrastiveTask:
    """The task that ``config.task`` names.

    Args:
      config: of the experiment.
      tokenizer: for the text predictor; by default read from the path ``config.text.tokenizer``.
      mesh: of the batches; needed when they are sharded.

    Raises:
      ConfigError: a name or option that does not exist, naming the nearest.
    """
    task = choose(TASKS, config.task.name, where='task.name')
    return task(config, tokenizer=tokenizer, mesh=mesh)
