"""From prompts to texts: one call for all prompts, then one for every token, with a cache between.

The cache is that of the model, ``models.layers.kv_cache``: an argument and a result of every call.
Programs are compiled for lengths that ``rounded`` gives, so that there are few.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from alm_jax.config import ConfigError
from alm_jax.decoding import sampling as sampling_lib
from alm_jax.decoding.program import Program, mesh_of
from alm_jax.decoding.sampling import Sampling

GREEDY = Sampling()
SHORTEST = 32


def rounded(length: int) -> int:
    """The least of 32, 48, 64, 96, 128, 192, ... that is not below ``length``."""
    power = max(1 << (length - 1).bit_length(), SHORTEST)
    less = power // 4 * 3
    return less if SHORTEST < less >= length else power


def padded(
    prompts: Sequence[Sequence[int]], vectors: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Prompts of several lengths as one batch of a rounded one.

    Args:
      prompts: token ids of each row; a negative one stands for a vector.
      vectors: float [n, d] of each row, one for every negative id, in order.

    Returns:
      (ids int32 [b, t], mask bool [b, t], {} or {'embeddings_btd': float32 [b, t, d]}).

    Raises:
      ConfigError: a prompt without tokens, or other numbers of vectors than of places for them.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ConfigError('A prompt without tokens cannot be continued.')
    shape = (len(prompts), rounded(max(map(len, prompts))))
    ids, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt
        mask[row, : len(prompt)] = True
    if vectors is None:
        return ids, mask, {}
    embeddings = np.zeros((*shape, np.shape(vectors[0])[1]), np.float32)
    for row, own in enumerate(vectors):
        places = ids[row] < 0
        if places.sum() != len(own):
            raise ConfigError(f'{len(own)} vectors for the {places.sum()} places of row {row}.')
        embeddings[row, places] = own
    return ids, mask, {'embeddings_btd': embeddings}


class Writer:
    """A model that writes: its parameters as decoding wants them, and where texts end.

    On a CPU it holds a copy of the parameters, see ``one_by_one``. Parameters that lie on a mesh,
    placed as for training, are used there: rows of a batch are split over 'data' and 'fsdp', the
    heads of the cache over 'tensor'.
    """

    def __init__(
        self,
        module: nn.Module,
        params: Any,
        *,
        stop_ids: Sequence[int] = (),
        fill: int = 0,
        method: str | None = None,
    ):
        """Makes nothing but the copy.

        Args:
          module: its call, or ``method``, takes (int32 ids [b, t], bool mask [b, t] or None,
            cache=, logits_at_bn=) and gives 'logits' and 'cache', as models.text.decoder does; it
            has ``empty_cache`` and ``one_by_one``.
          params: its parameters.
          stop_ids: tokens that end a row.
          fill: the token that stands after the end of a row.
          method: of the module.
        """
        if jax.default_backend() == 'cpu':  # elsewhere the second copy of the layers costs more
            module, params = module.one_by_one(jax.tree.map(jnp.asarray, params))
        self.params = params
        self.program = Program(module, method, mesh_of(params))
        self.ends = {'stops': np.asarray(stop_ids, np.int32), 'fill': np.int32(fill)}

    def generate(self, ids_bt, mask_bt, *, max_tokens: int, **options) -> list[list[int]]:
        """Tokens after each prompt, the stop token left out; see ``begin``."""
        texts = self.begin(ids_bt, mask_bt, max_tokens=max_tokens, **options)
        texts.extend(max_tokens)
        return texts.ids()

    def begin(
        self,
        ids_bt,
        mask_bt,
        *,
        max_tokens: int,
        sampling: Sampling = GREEDY,
        stop_ids: Sequence[int] | None = None,
        first: Mapping[str, Any] | None = None,
        each: Mapping[str, Any] | None = None,
        grammar: Any = None,
    ) -> 'Texts':
        """Reads prompts and chooses the first token of every text.

        Args:
          ids_bt: int32 [b, t]; mask_bt: bool [b, t]. Prompts may be padded anywhere, which changes
            nothing. Each t is compiled, see ``padded``. A row without any token stays empty.
          max_tokens: where rows stop at the latest, at least 1.
          sampling: see there.
          stop_ids: tokens that end a row; None is the writer's.
          first: further inputs of the call with the prompts, such as ``embeddings_btd``; their
            leading axis is the rows.
          each: likewise, inputs of this call and of those of each token.
          grammar: what may follow what, such as decoding.whisper.TokenRules; hashable.

        Raises:
          ConfigError: no tokens are wanted, or seeds of other rows.
        """
        rows = len(ids_bt)
        if max_tokens < 1:
            raise ConfigError(f'max_tokens is {max_tokens}; it is 1 or more.')
        numbers = dict(sampling.numbers(rows))
        seed = {'seed': numbers.pop('seed')} if 'seed' in numbers else {}
        lacking = -rows % self.program.row_parts
        inputs = (ids_bt, mask_bt, dict(first or {}), dict(each or {}), seed)
        ids_bt, mask_bt, first, each, seed = with_rows(inputs, lacking)
        rules = {**self.ends, **numbers, **seed}
        if stop_ids is not None:
            rules['stops'] = np.asarray(stop_ids, np.int32)
        state = _begin(
            self.params,
            ids_bt,
            mask_bt,
            first,
            each,
            rules,
            program=self.program,
            grammar=grammar,
            size=rounded(max_tokens),
        )
        return Texts(self, state, each, rules, grammar, rows, max_tokens)


class Texts:
    """A batch of texts that are being written, with the cache of their model.

    Attributes:
      tokens: int32 [b, made] so far; a stop token is among them, and then what fills.
      count: int [b], tokens of each row without the stop token.
      done: bool [b], rows that have ended.
    """

    def __init__(self, writer, state, each, rules, grammar, rows, max_tokens):
        self._writer, self._state, self._rules = writer, state, rules
        self._each, self._grammar = each, grammar
        self._rows, self._left = rows, max_tokens - 1
        self._read()

    def extend(self, steps: int, stopped=None) -> None:
        """Writes ``steps`` more tokens a row, or fewer where rows end or have all their tokens.

        Args:
          steps: any number: no program is compiled for it.
          stopped: bool [b], rows that end here whatever the model says.
        """
        steps = min(steps, self._left)
        stopped = np.zeros(self._rows, bool) if stopped is None else stopped
        self._state = _extend(
            self._writer.params,
            self._state,
            self._each,
            self._rules,
            np.int32(steps),
            with_rows(stopped, len(self._state['done']) - self._rows),
            program=self._writer.program,
            grammar=self._grammar,
        )
        self._left -= steps
        self._read()

    @property
    def complete(self) -> bool:
        """Whether there is nothing more to write."""
        return not self._left or bool(self.done.all())

    def ids(self) -> list[list[int]]:
        """The tokens of each row without its stop token."""
        return [row[:n].tolist() for row, n in zip(self.tokens, self.count)]

    def _read(self):
        names = ('tokens', 'made', 'count', 'done')
        tokens, made, count, done = jax.device_get([self._state[name] for name in names])
        self.tokens = tokens[: self._rows, :made]
        self.count, self.done = count[: self._rows], done[: self._rows]


@functools.partial(jax.jit, static_argnames=('program', 'grammar', 'size'))
def _begin(params, ids_bt, mask_bt, first, each, rules, *, program, grammar, size):
    """The state after the first token: a buffer of ``size`` tokens, and a cache for them."""
    batch, length = ids_bt.shape
    logits, cache = program.prefill(params, ids_bt, mask_bt, {**first, **each}, length + size)
    state = {
        'cache': cache,
        'tokens': jnp.full((batch, size), rules['fill'], jnp.int32),
        'made': jnp.zeros((), jnp.int32),
        'count': jnp.zeros(batch, jnp.int32),
        'done': program.whole(~mask_bt.any(axis=1)),
    }
    if 'repetition_penalty' in rules:
        state['seen'] = seen(ids_bt, mask_bt, logits.shape[1])
    if grammar is not None:
        state['history'] = grammar.start(batch)
    return _append(state, logits, rules, program, grammar)


@functools.partial(jax.jit, static_argnames=('program', 'grammar'), donate_argnames='state')
def _extend(params, state, each, rules, steps, stopped, *, program, grammar):
    """The state ``steps`` tokens later, or fewer when all rows are done."""
    limit = state['made'] + steps
    state = {**state, 'done': state['done'] | stopped}

    def body(state):
        last = jax.lax.dynamic_slice_in_dim(state['tokens'], state['made'] - 1, 1, axis=1)
        logits, cache = program.call(params, last, None, state['cache'], each)
        return _append({**state, 'cache': cache}, logits, rules, program, grammar)

    def go_on(state):
        return (state['made'] < limit) & ~jnp.all(state['done'])

    return jax.lax.while_loop(go_on, body, state)


def _append(state, logits_bv, rules, program, grammar):
    """The state with one more token in every row."""
    made = state['made']
    logits_bv = sampling_lib.constrain(logits_bv, rules, rules['stops'], made, state.get('seen'))
    if grammar is not None:
        logits_bv = grammar.apply(logits_bv, state['history'])
    token = sampling_lib.choose(logits_bv, rules, made)
    token = program.whole(jnp.where(state['done'], rules['fill'], token))
    done = state['done'] | jnp.isin(token, rules['stops'])
    more = {}
    if 'seen' in state:
        more['seen'] = state['seen'].at[jnp.arange(len(token)), token].set(True)
    if grammar is not None:
        more['history'] = grammar.append(state['history'], token)
    return {
        **more,
        'cache': state['cache'],
        'tokens': jax.lax.dynamic_update_slice_in_dim(
            state['tokens'], token[:, None], made, axis=1
        ),
        'made': made + 1,
        'count': state['count'] + ~done,
        'done': done,
    }


def seen(ids_bt, mask_bt, vocabulary: int):
    """bool [b, vocabulary]: the tokens that prompts have; places of vectors are none."""
    ids_bt = jnp.where(mask_bt & (ids_bt >= 0), ids_bt, vocabulary)
    rows = jnp.arange(len(ids_bt))[:, None]
    return jnp.zeros((len(ids_bt), vocabulary), bool).at[rows, ids_bt].set(True, mode='drop')


def with_rows(tree, rows: int):
    """Arrays with so many more rows of zeros at their ends."""

    def pad(x):
        lib = jnp if isinstance(x, jax.Array) else np
        return lib.pad(x, ((0, rows), *[(0, 0)] * (np.ndim(x) - 1)))

    return jax.tree.map(pad, tree) if rows else tree
