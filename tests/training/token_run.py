"""A small decoder's cross-entropy over ragged rows, in parts and on devices; run as a program.

``python token_run.py OUT.npz`` on 4 forced devices writes for every case the mean loss over tokens,
its gradient as one vector and what a mean of the means of micro-batches would have been.
"""

import sys

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from alm_jax.models.text.decoder import Decoder, Size
from alm_jax.training import micro_batches, sharding

ROWS, TOKENS = 32, 12
CASES = ((1, 1), (1, 2), (1, 8), (2, 4), (4, 8))  # devices, micro-batches
MODEL = Decoder(Size(width=16, depth=1, heads=2, mlp_width=32, vocabulary=50), dropout=0.1)


class LanguageModel:
    """The least that a task for sums over tokens is."""

    def loss_sum_and_count(self, params, extra, batch, rng):
        ids, mask = batch['token_ids'], batch['token_mask']
        variables = {'params': params, **extra}
        out = MODEL.apply(variables, ids, mask, train=True, rngs={'dropout': rng})
        log_p = jax.nn.log_softmax(out['logits'][:, :-1])
        of_next = jnp.take_along_axis(log_p, ids[:, 1:, None], axis=-1)[..., 0]
        counts = mask[:, 1:]
        counted = jnp.sum(counts).astype(jnp.float32)
        return -jnp.sum(of_next * counts), {'counted': counted, 'log_p': jnp.sum(of_next * counts)}

    def loss(self, params, extra, batch, rng):
        total, sums = self.loss_sum_and_count(params, extra, batch, rng)
        count = sums['counted']
        return total / count, ({'counted': count, 'log_p': sums['log_p'] / count}, extra)


def batch():
    """Rows of 2 to 12 tokens, and one of none."""
    rng = np.random.default_rng(0)
    lengths = np.where(np.arange(ROWS) % 4, 2, rng.integers(8, TOKENS + 1, ROWS))
    lengths[5] = 0
    mask = np.arange(TOKENS) < lengths[:, None]
    ids = rng.integers(1, 50, (ROWS, TOKENS)) // np.where(np.arange(ROWS) % 4, 1, 9)[:, None]
    return {'token_ids': (ids * mask).astype(np.int32), 'token_mask': mask}


def main(out):
    rows = batch()
    params = MODEL.init(jax.random.key(0), rows['token_ids'])['params']
    params['token_embedding']['embedding'] *= 20  # sure of itself, so that rows differ in loss
    found = {}
    for devices, count in CASES:
        mesh = sharding.make_mesh({'data': devices}, jax.devices()[:devices])
        everywhere = sharding.replicated(mesh)
        gradient = micro_batches.gradient_of(LanguageModel(), count)
        program = jax.jit(
            lambda params, rows, rng, gradient=gradient: gradient(
                lambda trainable: trainable, params, {}, rows, rng
            ),
            in_shardings=(everywhere, sharding.batch_sharding(mesh), everywhere),
        )
        placed = sharding.put_batch(rows, mesh)
        (loss, (metrics, _)), gradients = program(params, placed, jax.random.key(1))
        found[f'loss_{devices}_{count}'] = loss
        found[f'counted_{devices}_{count}'] = metrics['counted']
        found[f'log_p_{devices}_{count}'] = metrics['log_p']
        found[f'gradient_{devices}_{count}'] = jax.flatten_util.ravel_pytree(gradients)[0]
    parts = [jax.tree.map(lambda x, i=i: x[i::4], rows) for i in range(4)]
    means = [LanguageModel().loss(params, {}, part, jax.random.key(1))[0] for part in parts]
    np.savez(out, mean_of_means=np.mean(means), **jax.device_get(found))


if __name__ == '__main__':
    main(sys.argv[1])
