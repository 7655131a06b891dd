"""Cross-entropy of next tokens without the logits of the whole batch.

The vocabulary projection and the loss are computed ``chunk`` positions at a time; a custom gradient
computes each chunk's logits again. In every row the positions that count are taken first, so chunks
without any are skipped: of rows that are mostly audio and prompt, most are.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec


class TokenSums(NamedTuple):
    """Sums over the tokens of a row, each times its weight; float32 [b] each.

    Attributes:
      loss: of the losses.
      count: of the weights alone.
      correct: of those whose logit is the largest.
    """

    loss: jax.Array
    count: jax.Array
    correct: jax.Array


class _Form(NamedTuple):
    chunk: int
    z_loss: float
    label_smoothing: float
    softcap: float | None


def token_cross_entropy(
    tokens_btd: jax.Array,
    head_vd: jax.Array,
    targets_bt: jax.Array,
    weights_bt: jax.Array,
    *,
    chunk: int,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    mesh: Mesh | None = None,
    split: Sequence[tuple[str, ...]] = (),
) -> TokenSums:
    """Sums over the tokens of each row; their sums over rows give the mean loss of a batch.

    With logits l = head x, log Z their log-sum-exp and e the label smoothing, the loss of a token
    is ``log Z - (1 - e) l[target] - e mean(l) + z_loss (log Z)^2``. Sources: Szegedy et al. 2016
    (https://arxiv.org/abs/1512.00567), section 7; Chowdhery et al. 2022 (PaLM,
    https://arxiv.org/abs/2204.02311), section 5.

    Args:
      tokens_btd: [b, t, d], what the head projects. Products are of its dtype; their sums, softmax
        and loss are float32.
      head_vd: [vocabulary, d].
      targets_bt: int32 [b, t]; any number where the weight is 0.
      weights_bt: bool or float [b, t].
      chunk: positions of each row whose logits exist at a time; it need not divide t.
      z_loss: weight of (log Z)^2.
      label_smoothing: share of the target that is spread over the vocabulary.
      softcap: c, where logits are c tanh(l / c); None is none.
      mesh: whose devices go each through their own positions, so that the gradient of the head is
        summed over them once and not with every chunk; None leaves that to the partitioner.
      split: the axes of ``mesh`` that b, and t, are split over. Over others the partitioner may
        split the head.

    Returns:
      TokenSums; ``loss`` alone has a gradient, with respect to tokens and head.
    """
    form = _Form(chunk, z_loss, label_smoothing, softcap)
    axes = () if mesh is None else tuple(itertools.chain(*split))

    def local(tokens_btd, head_vd, targets_bt, weights_bt):
        order = jnp.argsort(weights_bt == 0, axis=1, stable=True)
        tokens_btd = jnp.take_along_axis(tokens_btd, order[..., None], axis=1)
        targets_bt, weights_bt = (
            jnp.take_along_axis(x, order, axis=1) for x in (targets_bt, weights_bt)
        )
        active_n = jnp.any(_chunks(weights_bt, chunk) != 0, axis=(1, 2))
        if axes:  # all skip the same chunks, for there may be collectives in them
            active_n = jax.lax.psum(active_n.astype(jnp.int32), axes) > 0
        losses, correct = _losses(tokens_btd, head_vd, targets_bt, active_n, form)
        return weights_bt * losses, weights_bt * correct

    if axes:
        rows, whole = PartitionSpec(*split), PartitionSpec()
        local = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(rows, whole, rows, rows),
            out_specs=rows,
            axis_names=set(axes),
            check_vma=False,
        )
    weights_bt = jax.lax.stop_gradient(weights_bt.astype(jnp.float32))
    losses, correct = local(tokens_btd, head_vd, targets_bt, weights_bt)
    return TokenSums(*(jnp.sum(x, axis=1) for x in (losses, weights_bt, correct)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _losses(tokens_btd, head_vd, targets_bt, active_n, form: _Form):
    """([b, t] losses, [b, t] whether the target has the largest logit), 0 in skipped chunks."""
    return _forward(tokens_btd, head_vd, targets_bt, active_n, form)[0]


def _forward(tokens_btd, head_vd, targets_bt, active_n, form):
    head = head_vd.astype(tokens_btd.dtype)

    def look(part):
        tokens, targets = part
        logits = _logits(tokens, head, form)[0]
        peak, at_target = jnp.max(logits, axis=-1), _sum_at(logits, targets)
        log_z = peak + jnp.log(jnp.sum(jnp.exp(logits - peak[..., None]), axis=-1))
        smooth = form.label_smoothing
        losses = log_z - (1 - smooth) * at_target + form.z_loss * jnp.square(log_z)
        if smooth:
            losses -= smooth * jnp.mean(logits, axis=-1)
        return losses, (at_target == peak).astype(jnp.float32), log_z

    def skip(part):
        return (jnp.zeros(part[1].shape, jnp.float32),) * 3

    parts = _chunks((tokens_btd, targets_bt), form.chunk)
    found = jax.lax.map(lambda x: jax.lax.cond(x[0], look, skip, x[1]), (active_n, parts))
    losses, correct, log_z = (_joined(x, targets_bt.shape[1]) for x in found)
    return (losses, correct), (tokens_btd, head_vd, targets_bt, active_n, log_z)


def _backward(form, kept, cotangents):
    tokens_btd, head_vd, targets_bt, active_n, log_z_bt = kept
    head = head_vd.astype(tokens_btd.dtype)

    def pull(part, dhead):
        tokens, targets, log_z, wanted = part
        logits, slope_of_cap = _logits(tokens, head, form)
        smooth = form.label_smoothing
        slope = jnp.exp(logits - log_z[..., None]) * (1 + 2 * form.z_loss * log_z)[..., None]
        slope -= (1 - smooth) * _is_target(logits, targets) + smooth / logits.shape[-1]
        slope = (slope * slope_of_cap * wanted[..., None]).astype(tokens.dtype)
        dtokens = jnp.einsum('bcv,vd->bcd', slope, head)
        dhead += jnp.einsum('bcv,bcd->vd', slope, tokens, preferred_element_type=jnp.float32)
        return dtokens, dhead

    def skip(part, dhead):
        return jnp.zeros_like(part[0]), dhead

    def step(dhead, x):
        dtokens, dhead = jax.lax.cond(x[0], pull, skip, x[1], dhead)
        return dhead, dtokens

    parts = _chunks((tokens_btd, targets_bt, log_z_bt, cotangents[0]), form.chunk)
    start = jnp.zeros(head_vd.shape, jnp.float32)
    dhead, dtokens = jax.lax.scan(step, start, (active_n, parts))
    return _joined(dtokens, targets_bt.shape[1]), dhead.astype(head_vd.dtype), None, None


_losses.defvjp(_forward, _backward)


def _logits(tokens_bcd, head_vd, form):
    """(float32 logits [b, c, v], their slope with respect to those before the cap)."""
    logits = jnp.einsum('bcd,vd->bcv', tokens_bcd, head_vd, preferred_element_type=jnp.float32)
    if form.softcap is None:
        return logits, 1.0
    share = jnp.tanh(logits / form.softcap)
    return form.softcap * share, 1 - jnp.square(share)


def _is_target(logits_bcv, targets_bc):
    """bool [b, c, v]; a comparison, as a gather would collect a vocabulary that is split."""
    ids = jax.lax.broadcasted_iota(jnp.int32, logits_bcv.shape, 2)
    return ids == targets_bc[..., None]


def _sum_at(logits_bcv, targets_bc):
    return jnp.sum(jnp.where(_is_target(logits_bcv, targets_bc), logits_bcv, 0.0), axis=-1)


def _chunks(tree, chunk: int):
    """[b, t, ...] -> [chunks, b, chunk, ...], zeros behind the end."""

    def cut(x):
        size = min(chunk, x.shape[1])
        padded = jnp.pad(x, [(0, 0), (0, -x.shape[1] % size), *[(0, 0)] * (x.ndim - 2)])
        return jnp.moveaxis(padded.reshape(len(x), -1, size, *x.shape[2:]), 1, 0)

    return jax.tree.map(cut, tree)


def _joined(x, length: int):
    """The inverse of ``_chunks``."""
    joined = jnp.moveaxis(x, 0, 1)
    return joined.reshape(joined.shape[0], -1, *x.shape[3:])[:, :length]
