"""Greedy decoding of a model whose next token is known."""

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.decoding.greedy import greedy

VOCABULARY = 7


def count_up(token_b, cache):
    """A model that says its last token plus one."""
    return jax.nn.one_hot((token_b + 1) % VOCABULARY, VOCABULARY), cache


def test_rows_stop_where_they_should():
    logits = jax.nn.one_hot(jnp.array([1, 4, 6]), VOCABULARY)
    tokens, count = jax.jit(lambda x: greedy(count_up, x, (), max_tokens=5, stop_ids=(6,)))(logits)
    assert tokens.tolist() == [[1, 2, 3, 4, 5], [4, 5, 6, 0, 0], [6, 0, 0, 0, 0]]
    assert count.tolist() == [5, 2, 0]


def test_it_ends_when_all_rows_have():
    """The model is asked once for every token after the first, and not after the last."""
    asked = []

    def step(token_b, cache):
        jax.debug.callback(lambda: asked.append(1))
        return count_up(token_b, cache)

    logits = jax.nn.one_hot(jnp.array([3, 4]), VOCABULARY)
    tokens, count = jax.jit(lambda x: greedy(step, x, (), max_tokens=9, stop_ids=(6,)))(logits)
    jax.effects_barrier()
    assert np.asarray(tokens)[0].tolist() == [3, 4, 5, 6, 0, 0, 0, 0, 0]
    assert count.tolist() == [3, 2]
    assert len(asked) == 3


def test_without_stop_tokens_all_are_wanted():
    logits = jax.nn.one_hot(jnp.array([5]), VOCABULARY)
    tokens, count = jax.jit(lambda x: greedy(count_up, x, (), max_tokens=3))(logits)
    assert tokens.tolist() == [[5, 6, 0]]
    assert count.tolist() == [3]
