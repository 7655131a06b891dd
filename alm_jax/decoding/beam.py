"""Beam search: the likeliest texts as a whole, among those that begin with the likeliest tokens.

The rules by which texts are kept, compared and given up are those of transformers' ``generate`` of
versions 4.50 and later, so that both find the same texts.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.config import ConfigError
from alm_jax.decoding import sampling as sampling_lib
from alm_jax.decoding.generate import GREEDY, Writer, rounded, seen, with_rows
from alm_jax.decoding.program import over_rows
from alm_jax.decoding.sampling import Sampling

NEVER = -1e9  # transformers' score of what must not be taken


@dataclasses.dataclass(frozen=True)
class Beams:
    """How a search goes.

    Attributes:
      width: texts of a row that are kept.
      length_penalty: a finished text's log-probability is divided by its tokens, the stop token
        among them, to this power; above 0 longer texts gain.
      early_stopping: True ends a row when ``width`` texts are finished; False when none of the
        others would be better if it ended now; 'never' when none can become better, the length
        that helps it most being assumed.

    Raises:
      ConfigError: fewer than 1 text, or another word.
    """

    width: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self):
        if self.width < 1:
            raise ConfigError(f'beams.width is {self.width}; it is 1 or more.')
        if self.early_stopping not in (True, False, 'never'):
            raise ConfigError(
                f"beams.early_stopping is {self.early_stopping!r}; use True, False or 'never'."
            )


@dataclasses.dataclass(frozen=True)
class Found:
    """The texts of a search, the best of each row first.

    Attributes:
      tokens: int32 [b, width, n], stop tokens among them.
      count: int32 [b, width], tokens without the stop token.
      scores: float32 [b, width], log-probabilities with the length penalty.
    """

    tokens: np.ndarray
    count: np.ndarray
    scores: np.ndarray

    def ids(self) -> list[list[int]]:
        """The best text of each row, without its stop token."""
        return [row[:n].tolist() for row, n in zip(self.tokens[:, 0], self.count[:, 0])]


def search(
    writer: Writer,
    ids_bt,
    mask_bt,
    *,
    beams: Beams,
    max_tokens: int,
    sampling: Sampling = GREEDY,
    first: Mapping[str, Any] | None = None,
    each: Mapping[str, Any] | None = None,
) -> Found:
    """Searches for the best texts after prompts, as one program.

    Args:
      writer, ids_bt, mask_bt, max_tokens, first, each: see ``Writer.begin``.
      beams: see there.
      sampling: of which ``repetition_penalty`` and ``min_tokens`` count.

    Raises:
      ConfigError: a temperature, or no tokens are wanted.
    """
    if sampling.temperature:
        raise ConfigError('sampling.temperature is for random texts; beam search has none.')
    if max_tokens < 1:
        raise ConfigError(f'max_tokens is {max_tokens}; it is 1 or more.')
    rows, size = len(ids_bt), rounded(max_tokens)
    inputs = (ids_bt, mask_bt, dict(first or {}), dict(each or {}))
    inputs = with_rows(inputs, -rows % writer.program.row_parts)
    # In float64, as Python's powers are.
    lengths = np.arange(1, size + 1) ** np.float64(beams.length_penalty)
    rules = {**writer.ends, **sampling.numbers(rows), 'lengths': lengths.astype(np.float32)}
    names = ('tokens', 'count', 'scores')
    found = _search(
        writer.params,
        *inputs,
        rules,
        np.int32(max_tokens),
        program=writer.program,
        beams=beams,
        size=size,
    )
    tokens, count, scores = (np.asarray(found[name])[:rows] for name in names)
    return Found(tokens[:, :, :max_tokens], count, scores)


@functools.partial(jax.jit, static_argnames=('program', 'beams', 'size'))
def _search(params, ids_bt, mask_bt, first, each, rules, max_tokens, *, program, beams, size):
    """'tokens', 'count' and 'scores' of Found."""
    (b, length), k = ids_bt.shape, beams.width
    logits, cache = program.prefill(params, ids_bt, mask_bt, {**first, **each}, length + size)
    cache = over_rows(lambda x, axis: jnp.repeat(x, k, axis), cache)
    logits, each = jax.tree.map(lambda x: jnp.repeat(x, k, 0), (logits, each))
    empty = mask_bt.any(axis=1) == 0
    texts = {
        'tokens': jnp.full((b, k, size), rules['fill'], jnp.int32),
        'scores': jnp.full((b, k), NEVER, jnp.float32),
    }
    state = {
        'cache': program.split_cache(cache),
        'made': jnp.zeros((), jnp.int32),
        # All beams begin alike, so the first tokens are those of one.
        'open': {**texts, 'scores': texts['scores'].at[:, 0].set(0.0)},
        'found': {
            **texts,
            'count': jnp.zeros((b, k), jnp.int32),
            'is': jnp.broadcast_to(empty[:, None], (b, k)),
        },
        'hopeful': ~empty,
        'all_end': jnp.array(False),
    }
    if 'repetition_penalty' in rules:
        state['seen'] = jnp.repeat(seen(ids_bt, mask_bt, logits.shape[1]), k, 0)
    take = functools.partial(_take, rules=rules, beams=beams, prompt=length, limit=max_tokens)

    def body(state):
        last = jax.lax.dynamic_slice_in_dim(state['open']['tokens'], state['made'] - 1, 1, axis=2)
        logits, cache = program.call(params, last.reshape(b * k, 1), None, state['cache'], each)
        return take({**state, 'cache': cache}, logits)

    def go_on(state):
        full = jnp.all(state['found']['is']) & (beams.early_stopping is True)
        return jnp.any(state['hopeful']) & ~full & ~state['all_end']

    state = jax.lax.while_loop(go_on, body, take(state, logits))
    return program.whole(state['found'])


def _take(state, logits_nv, *, rules, beams, prompt, limit):
    """The state with one more token in each of the open texts; those that end are put aside."""
    b, k = state['open']['scores'].shape
    made, vocabulary = state['made'], logits_nv.shape[1]
    likely = sampling_lib.constrain(
        jax.nn.log_softmax(logits_nv), rules, rules['stops'], made, state.get('seen')
    )
    scores = state['open']['scores'][:, :, None] + likely.reshape(b, k, vocabulary)
    # So many that k go on even if all stop tokens of all k are among them.
    kept = k * max(2, 1 + len(rules['stops']))
    scores, index = jax.lax.top_k(scores.reshape(b, -1), kept)
    parent, token = index // vocabulary, index % vocabulary
    tokens = _rows(state['open']['tokens'], parent)
    tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[:, :, None], made, axis=2)
    stopped = jnp.isin(token, rules['stops'])
    ends = stopped | (made + 1 >= limit)

    open_scores, chosen = jax.lax.top_k(scores + ends * NEVER, k)
    opened = {'tokens': _rows(tokens, chosen), 'scores': open_scores}

    found = state['found']
    full = found['is'].all(axis=1) & (beams.early_stopping is True)
    final = scores / rules['lengths'][made]
    final += (full * NEVER + ~state['hopeful'] * NEVER)[:, None]
    ended = ends & (jnp.arange(kept) < k)
    final += ~ended * NEVER
    new = {'tokens': tokens, 'scores': final, 'count': made + ~stopped, 'is': ended}
    both = {name: jnp.concatenate([found[name], new[name]], axis=1) for name in found}
    best = jax.lax.top_k(both['scores'], k)[1]
    found = {name: _rows(x, best) for name, x in both.items()}

    longest = limit if beams.early_stopping == 'never' and beams.length_penalty > 0 else made + 1
    possible = open_scores[:, :1] / rules['lengths'][longest - 1]
    worst = jnp.where(found['is'], found['scores'].min(axis=1, keepdims=True), NEVER)
    source = (jnp.arange(b)[:, None] * k + _rows(parent, chosen)).ravel()
    more = {}
    if 'seen' in state:
        last = _rows(token, chosen).ravel()
        more['seen'] = state['seen'][source].at[jnp.arange(b * k), last].set(True)
    return {
        **more,
        'cache': _reordered(state['cache'], source, prompt),
        'made': made + 1,
        'open': opened,
        'found': found,
        'hopeful': state['hopeful'] & jnp.any(possible > worst, axis=1),
        'all_end': ends.all(),
    }


def _rows(x, index_bn):
    """Entries ``index_bn`` along the second axis of each row."""
    return jnp.take_along_axis(x, index_bn.reshape(*index_bn.shape, *[1] * (x.ndim - 2)), axis=1)


def _reordered(cache, source_n, prompt: int):
    """Each open text with the keys and values of the one that it goes on from.

    Texts of one prompt differ only behind it, and not at all in a memory or the mask.
    """

    def reorder(path, x):
        if not any(getattr(key, 'key', None) == 'attn' for key in path):
            return x
        own = jax.lax.slice_in_dim(x, prompt, None, axis=x.ndim - 2)
        own = jnp.take(own, source_n, axis=x.ndim - 4)
        return jax.lax.dynamic_update_slice_in_dim(x, own, prompt, axis=x.ndim - 2)

    return jax.tree_util.tree_map_with_path(reorder, cache)
