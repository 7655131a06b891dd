"""A loss and its gradient over a batch whose activations do not fit, one micro-batch after another.

Micro-batch i of m has the rows i, i + m, i + 2 m, ... of the batch. Wherever the rows of a device
divide by m that is a part of its own rows, so none moves between devices, and which rows go
together does not depend on how many devices there are. Keys are those of ``row_keys``: every row
has the dropout and the augmentation that it has in the whole batch, whatever m is.

``grad_cache`` is for losses that compare rows with each other, ``accumulate`` for sums over tokens.
What a task needs for either is in ``alm_jax.tasks``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from alm_jax.config import ConfigError
from alm_jax.training import row_keys

Gradient = Callable[..., tuple[tuple[jax.Array, tuple[dict[str, jax.Array], Any]], Any]]


def gradient_of(task: Any, count: int) -> Gradient:
    """How a step gets the loss of ``task`` and its gradient with ``count`` micro-batches.

    Args:
      task: see ``alm_jax.tasks``.
      count: of micro-batches; 1 is ``task.loss`` differentiated as it is.

    Returns:
      ``(params_of, trainable, extra, batch, rng) -> ((loss, (metrics, extra)), gradients)``, where
      ``params_of(trainable)`` are all parameters and gradients are those of ``trainable``.

    Raises:
      ConfigError: the task has no loss that can be cut.
    """

    def whole(params_of, trainable, extra, batch, rng):
        def loss(trainable):
            return task.loss(params_of(trainable), extra, batch, rng)

        return jax.value_and_grad(loss, has_aux=True)(trainable)

    def cached(params_of, trainable, extra, batch, rng):
        def embed(trainable, batch, rng):
            return task.embed(params_of(trainable), extra, batch, rng)

        def loss(trainable, embeddings):
            return task.loss_of(params_of(trainable), extra, embeddings, batch)

        return grad_cache(embed, loss, trainable, batch, rng, count)

    def accumulated(params_of, trainable, extra, batch, rng):
        def loss(trainable, batch, rng):
            return task.loss_sum_and_count(params_of(trainable), extra, batch, rng)

        (loss, metrics), gradients = accumulate(loss, trainable, batch, rng, count)
        return (loss, (metrics, extra)), gradients

    if count == 1:
        return whole
    if hasattr(task, 'embed'):
        return cached
    if hasattr(task, 'loss_sum_and_count'):
        return accumulated
    raise ConfigError(
        f'config.micro_batches is {count}, but the loss of {type(task).__name__} cannot be cut '
        'into micro-batches. Set it to 1.'
    )


def grad_cache(
    embed: Callable[[Any, Any, jax.Array], Any],
    loss: Callable[[Any, Any], tuple[jax.Array, Any]],
    params: Any,
    batch: Any,
    rng: jax.Array,
    count: int,
) -> tuple[tuple[jax.Array, Any], Any]:
    """GradCache: the gradient of the whole batch with the activations of one micro-batch.

    One pass embeds every micro-batch and keeps nothing else. The loss over all embeddings then
    gives their gradients, and a second pass embeds every micro-batch again, with the same keys, and
    pulls its part of those back to the parameters. It costs one more forward pass. Source: Gao et
    al. 2021, https://arxiv.org/abs/2101.06983, section 3.2.

    Args:
      embed: (params, rows of the batch, rng) -> a tree of arrays with an element for each row.
      loss: (params, embeddings of the whole batch, rows in order) -> (scalar, anything else). Both
        its arguments are differentiated, so a logit scale among the parameters is trained.
      params: a tree of float arrays.
      batch: a tree of arrays [b, ...].
      rng: one key; micro-batches get ``row_keys.of_micro_batch`` of it.
      count: of micro-batches; divides b.

    Returns:
      ((scalar, anything else), gradients of ``params``). Sums over micro-batches are float32.
    """
    parts = _parts(batch, count)

    def embed_part(params, index):
        return embed(params, _part(parts, index), _key(rng, parts, index))

    _, embedded = jax.lax.scan(
        lambda _, index: (None, embed_part(params, index)), None, jnp.arange(count)
    )
    found, (direct, wanted) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        params, _joined(embedded)
    )
    wanted = _parts(wanted, count)

    def pull(sums, index):
        _, pull_back = jax.vjp(lambda params: embed_part(params, index), params)
        return _added(sums, *pull_back(_part(wanted, index))), None

    sums, _ = jax.lax.scan(pull, _float32(direct), jnp.arange(count))
    return found, _like(sums, params)


def accumulate(
    loss_sum_and_count: Callable[[Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]],
    params: Any,
    batch: Any,
    rng: jax.Array,
    count: int,
) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Any]:
    """The mean over all tokens of a batch and its gradient, from sums over micro-batches.

    A mean of the means of micro-batches would give tokens of short rows more weight, and another
    loss for every ``count``; here sums are added up and divided once.

    Args:
      loss_sum_and_count: (params, rows of the batch, rng) -> (sum over the tokens that count, {
        'counted': their number, and other sums over them}), float32. The number must not depend on
        the parameters.
      params, batch, rng, count: as in ``grad_cache``.

    Returns:
      ((mean, {'counted': number of tokens, and means of the others}), gradients of the mean); zeros
      when no token counts.
    """
    parts = _parts(batch, count)
    of_part = jax.value_and_grad(loss_sum_and_count, has_aux=True)

    def add(sums, index):
        (total, others), gradients = of_part(params, _part(parts, index), _key(rng, parts, index))
        return _added(sums, (total, others, gradients)), None

    (total, others), gradients = jax.eval_shape(of_part, params, _part(parts, 0), rng)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape), (total, others, gradients))
    (total, others, gradients), _ = jax.lax.scan(add, start, jnp.arange(count))
    counted = others.pop('counted')
    total, others, gradients = jax.tree.map(
        lambda x: x / jnp.maximum(counted, 1.0), (total, others, gradients)
    )
    return (total, {'counted': counted, **others}), _like(gradients, params)


def _parts(tree, count):
    """[b, ...] -> [b / count, count, ...]; where b is sharded, each device cuts its own rows."""
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), tree)


def _part(parts, index):
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, 1, False), parts)


def _joined(stacked):
    """[count, b / count, ...] -> [b, ...], the inverse of taking parts one after another."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), stacked)


def _key(rng, parts, index):
    rows, count = jax.tree.leaves(parts)[0].shape[:2]
    return row_keys.of_micro_batch(rng, index, rows, count)


def _added(sums, more):
    return jax.tree.map(lambda x, y: x + y.astype(jnp.float32), sums, more)


def _float32(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def _like(tree, other):
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, other)
