"""Matching against loops over pairs, and where its negatives come from."""

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.objectives.contrastive import positives
from alm_jax.objectives.matching import hard_negatives, matching

GROUPS = np.array([0, 1, 2, 0, 3]), np.array([0, 1, 1, 2, 3])  # some rows are positives of others


def embeddings(b=5, d=4):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, b, d)).astype(np.float32)
    return z / np.linalg.norm(z, axis=2, keepdims=True)


def test_the_loss_and_its_gradient_are_those_of_a_loop_over_pairs():
    rng = np.random.default_rng(1)
    own, text, audio = rng.normal(size=(3, 6)) * 3
    exists = np.array([True, True, False, True, False, True])

    def loop(own, text, audio):
        total, pairs = 0.0, 0
        for row in range(6):
            total, pairs = total + np.log1p(np.exp(-own[row])), pairs + 1
            if exists[row]:
                total += np.log1p(np.exp(text[row])) + np.log1p(np.exp(audio[row]))
                pairs += 2
        return total / pairs

    value, gradients = jax.value_and_grad(matching, argnums=(0, 1, 2))(own, text, audio, exists)
    np.testing.assert_allclose(value, loop(own, text, audio), rtol=1e-6)
    for side, gradient in enumerate(gradients):
        for row in range(6):
            moved = [np.stack([own, text, audio]) for _ in range(2)]
            moved[0][side, row] += 1e-5
            moved[1][side, row] -= 1e-5
            slope = (loop(*moved[0]) - loop(*moved[1])) / 2e-5
            np.testing.assert_allclose(gradient[row], slope, rtol=1e-5, atol=1e-7)


def test_negatives_have_the_probabilities_of_the_softmax_without_positives():
    za, zt = embeddings()
    draw = jax.jit(jax.vmap(lambda rng: hard_negatives(rng, za, zt, 3.0, *GROUPS)))
    text, audio, exists = draw(jax.random.split(jax.random.key(0), 20_000))
    assert exists.all()
    positive = np.asarray(positives(*map(jnp.asarray, GROUPS)))
    assert positive.sum() > 5
    logits = np.where(positive, -np.inf, 3.0 * za @ zt.T)
    for drawn, scores in ((text, logits), (audio, logits.T)):
        expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        found = np.stack([np.mean(np.asarray(drawn) == other, axis=0) for other in range(5)], 1)
        assert not found[positive].any()
        np.testing.assert_allclose(found, expected, atol=0.02)  # 5 standard deviations at most


def test_a_batch_of_positives_has_no_negatives():
    za, zt = embeddings()
    same = np.zeros(5, int)
    _, _, exists = hard_negatives(jax.random.key(0), za, zt, 3.0, same, np.arange(5))
    assert not exists.any()
    nothing = np.full(5, 7.0)
    np.testing.assert_allclose(matching(0 * nothing, nothing, nothing, exists), np.log(2))
