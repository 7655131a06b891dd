"""A task binds a model, its objective, the device front end and predictors.

What a training step asks of it:

- ``init(rng, batch_spec) -> (params, extra)``
- ``loss(params, extra, batch, rng) -> (scalar, (metrics, extra))`` over the global batch
- ``after_update(params, extra, step) -> extra``

and for ``config.micro_batches`` above 1 one of two ways to cut that loss, neither of which may
change ``extra``:

- rows that are compared with each other (GradCache): ``embed(params, extra, batch, rng)`` gives a
  tree of arrays with an element for each row, which depends on that row alone, and
  ``loss_of(params, extra, embeddings, batch)`` gives what ``loss`` does.
- sums over tokens: ``loss_sum_and_count(params, extra, batch, rng)`` gives the sum over the tokens
  that count and a dict of other such sums, among them their number as 'counted'; ``loss`` is the
  first over that number, and its metrics the others.

``rng`` is one key, from which every row draws as in the whole batch (see
``alm_jax.training.row_keys``): draws for rows have the rows as their leading axis.
"""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from alm_jax.config import choose
from alm_jax.tasks.contrastive import ContrastiveTask
from alm_jax.tasks.contrastive_captioning import ContrastiveCaptioningTask
from alm_jax.tasks.generative import GenerativeTask
from alm_jax.text.tokenizer import Tokenizer

TASKS = {
    'contrastive': ContrastiveTask,
    'contrastive_captioning': ContrastiveCaptioningTask,
    'generative': GenerativeTask,
}


def build_task(
    config: ConfigDict, *, tokenizer: Tokenizer | None = None, mesh: Mesh | None = None
) -> ContrastiveTask | GenerativeTask:
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
