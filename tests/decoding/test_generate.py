"""Decoding with a cache against decoding without, and against transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.decoding.generate import Writer, padded, rounded
from alm_jax.decoding.sampling import Sampling

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 14], [12, 3], [20, 21, 22, 23]]
TOKENS = 24
MODULE, PARAMS = small.decoder()
WRITER = Writer(MODULE, PARAMS, stop_ids=(1, 2))
HIDDEN = jax.jit(lambda ids, mask: MODULE.apply({'params': PARAMS}, ids, mask)['logits'])


def _theirs(reference, prompt, **options):
    ids = torch.tensor([prompt])
    tokens = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, **options
    )
    tokens = tokens[0, len(prompt) :].tolist()
    ends = [i for i, token in enumerate(tokens) if token in (2, 3)]
    return tokens[: ends[0]] if ends else tokens


def _uncached(prompt, count):
    """Greedy tokens, the whole text computed again for each."""
    text = list(prompt)
    for _ in range(count):
        ids = np.zeros((1, 64), np.int32)
        ids[0, : len(text)] = text
        logits = HIDDEN(ids, np.arange(64)[None] < len(text))
        token = int(jnp.argmax(logits[0, len(text) - 1]))
        if token in (1, 2):
            break
        text.append(token)
    return text[len(prompt) :]


def test_greedy_equals_transformers(pair):
    model, reference = pair
    want = [_theirs(reference, prompt) for prompt in PROMPTS]
    assert len({len(tokens) for tokens in want}) > 1  # some end by themselves
    assert model.generate_ids(PROMPTS, max_tokens=TOKENS) == want


def test_penalty_and_least_length_equal_transformers(pair):
    model, reference = pair
    sampling = Sampling(repetition_penalty=1.4, min_tokens=9)
    want = [
        _theirs(reference, prompt, repetition_penalty=1.4, min_new_tokens=9) for prompt in PROMPTS
    ]
    assert want != [_theirs(reference, prompt) for prompt in PROMPTS]
    assert model.generate_ids(PROMPTS, max_tokens=TOKENS, sampling=sampling) == want


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(1, 20), min_size=3, max_size=3), st.integers(1, 20), st.randoms())
def test_a_cache_and_padding_change_nothing(lengths, count, random):
    """Prompts of any lengths, spread over their row with padding anywhere."""
    rng = np.random.default_rng(random.randrange(1000))
    prompts = [rng.integers(3, small.VOCABULARY, n).tolist() for n in lengths]
    ids = rng.integers(0, small.VOCABULARY, (3, 32)).astype(np.int32)
    mask = np.zeros(ids.shape, bool)
    for row, prompt in enumerate(prompts):
        places = np.sort(rng.permutation(32)[: len(prompt)])
        ids[row, places], mask[row, places] = prompt, True
    want = [_uncached(prompt, count) for prompt in prompts]
    assert WRITER.generate(ids, mask, max_tokens=count) == want
    assert WRITER.generate(*padded(prompts)[:2], max_tokens=count) == want


def test_vectors_stand_where_ids_are_negative():
    """The vectors of tokens give what the tokens do."""
    table = np.asarray(PARAMS['token_embedding']['embedding'])
    ids, mask, first = padded([[5, -1, -1, 8], [-1, 4]], [table[[6, 7]], table[[9]]])
    got = WRITER.generate(ids, mask, max_tokens=10, first=first)
    assert got == WRITER.generate(*padded([[5, 6, 7, 8], [9, 4]])[:2], max_tokens=10)


def test_a_sample_does_not_depend_on_its_batch():
    sampling = {'temperature': 1.5, 'top_p': 0.95, 'repetition_penalty': 1.1}
    seeds = (3, 4, 5)
    together = WRITER.generate(
        *padded(PROMPTS)[:2], max_tokens=TOKENS, sampling=Sampling(**sampling, seed=seeds)
    )
    for row, prompt in enumerate(PROMPTS):
        alone = WRITER.generate(
            *padded([prompt])[:2], max_tokens=TOKENS, sampling=Sampling(**sampling, seed=seeds[row])
        )
        assert alone == together[row : row + 1]
    same = WRITER.generate(
        *padded(PROMPTS[:1] * 2)[:2], max_tokens=TOKENS, sampling=Sampling(**sampling, seed=(3, 9))
    )
    assert same[0] == together[0] != same[1]


def test_pieces_of_a_text_are_the_text():
    """Any steps of ``extend`` give what one does; what is stopped stays so."""
    ids, mask, _ = padded(PROMPTS)
    writer = Writer(MODULE, PARAMS)
    whole = writer.generate(ids, mask, max_tokens=TOKENS)
    texts = writer.begin(ids, mask, max_tokens=TOKENS)
    for steps in (1, 7, 3):
        texts.extend(steps)
    assert texts.ids() == [tokens[:12] for tokens in whole]
    texts.extend(5, np.array([False, True, False]))
    assert not texts.complete
    texts.extend(50)
    assert texts.complete
    assert texts.ids() == [whole[0], whole[1][:12], whole[2]]


def _script(rows, width=64):
    script = np.zeros((len(rows), width), np.int32)
    for row, tokens in enumerate(rows):
        script[row, : len(tokens)] = tokens
    return {'script': script}


def test_rows_end_where_they_should():
    """The model is asked once for every token, and not after the last row's end."""
    model = small.Script(9)
    writer = Writer(model, _script([[1, 2, 3, 6], [4, 6, 5, 5], [6, 5, 5, 5]]), stop_ids=(6, 7))
    texts = writer.begin(np.ones((3, 2), int), np.ones((3, 2), bool), max_tokens=30)
    texts.extend(30)
    jax.effects_barrier()
    assert texts.tokens.tolist() == [[1, 2, 3, 6], [4, 6, 0, 0], [6, 0, 0, 0]]
    assert texts.ids() == [[1, 2, 3], [4], []]
    assert model.calls == 4


def test_a_row_without_tokens_stays_empty():
    writer = Writer(small.Script(9), _script([[1, 2], [3, 4]]))
    mask = np.array([[True], [False]])
    assert writer.generate(np.ones((2, 1), int), mask, max_tokens=2) == [[1, 2], []]


def test_programs_are_few():
    """Two a pair of rounded lengths, whatever lengths, steps, stop tokens and numbers there are."""
    model = small.Script(9)
    writer = Writer(model, _script([[1] * 200], 200))
    for length in (1, 9, 32):
        for count in (2, 20, 32):
            for temperature in (0.01, 0.02):  # certain all the same
                sampling = Sampling(temperature, seed=length)
                ids, mask, _ = padded([[3] * length])
                tokens = writer.generate(
                    ids, mask, max_tokens=count, sampling=sampling, stop_ids=(length % 5 + 2,)
                )
                assert len(tokens[0]) == count
    assert model.compiled == [(1, 32), (1, 1)]
    writer.generate(*padded([[3] * 33])[:2], max_tokens=40)
    assert model.compiled[2:] == [(1, 48), (1, 1)]


def test_lengths_are_rounded_to_few():
    assert [rounded(n) for n in (1, 32, 33, 48, 49, 65, 96, 97)] == [
        32,
        32,
        48,
        48,
        64,
        96,
        96,
        128,
    ]
    assert len({rounded(n) for n in range(1, 4097)}) == 15


def test_what_cannot_be_written():
    with pytest.raises(ConfigError, match='A prompt without tokens'):
        padded([[1], []])
    with pytest.raises(ConfigError, match='1 vectors for the 2 places of row 0'):
        padded([[-1, -1]], [np.zeros((1, 4))])
    with pytest.raises(ConfigError, match='max_tokens is 0'):
        WRITER.generate(*padded([[1]])[:2], max_tokens=0)
