"""Texts piece by piece: whole characters, exact ends, nothing computed for nobody."""

import itertools

import jax
import numpy as np
import pytest
import small
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.decoding.generate import Writer
from alm_jax.decoding.stops import Pieces, cut
from alm_jax.decoding.streaming import stream, texts

ALPHABET = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
LENGTH = 64
TEXTS = st.text(st.sampled_from('ab \n.é日🎵'), max_size=12)


def _bytes_tokenizer():
    """A token for each byte, and one that is special."""
    vocabulary = {letter: i for i, letter in enumerate(ALPHABET)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(['<end>'])
    return tokenizer


TOKENIZER = _bytes_tokenizer()
END = TOKENIZER.token_to_id('<end>')
MODEL = small.Script(TOKENIZER.get_vocab_size())


def _writer(*rows, model=MODEL):
    script = np.full((len(rows), LENGTH), END, np.int32)
    for row, text in enumerate(rows):
        ids = TOKENIZER.encode(text).ids
        script[row, : len(ids)] = ids
    return Writer(model, {'script': script}, stop_ids=(END,))


def _prompts(rows):
    return np.ones((rows, 1), np.int32), np.ones((rows, 1), bool)


def _joined(pieces):
    return [''.join(row) for row in zip(*pieces)]


@settings(deadline=None, max_examples=60)
@given(
    TEXTS, TEXTS, st.lists(TEXTS.filter(bool).map(lambda s: s[:3]), max_size=3), st.integers(1, 9)
)
def test_stop_strings_cut_exactly(first, second, stops, chunk):
    """At their first character, wherever calls and characters' bytes divide them."""
    options = {'max_tokens': LENGTH, 'stops': stops}
    writer = _writer(first, second)
    want = [cut(text, stops)[0] for text in (first, second)]
    pieces = list(stream(writer, TOKENIZER, *_prompts(2), chunk=chunk, **options))
    assert _joined(pieces) == want
    assert '\ufffd' not in ''.join(itertools.chain(*pieces))
    assert texts(writer, TOKENIZER, *_prompts(2), **options) == want


def test_pieces_come_as_they_are_made():
    pieces = list(stream(_writer('a日b', 'cd'), TOKENIZER, *_prompts(2), max_tokens=9, chunk=1))
    assert pieces == [['a', 'c'], ['', 'd'], ['日', ''], ['b', ''], ['', '']]


def test_what_may_be_a_stop_string_waits():
    row = Pieces(TOKENIZER, ('abc', 'bd'))
    pieces = [row.add(TOKENIZER.encode(letter).ids) for letter in 'xababd']
    assert pieces == ['x', '', '', 'ab', '', 'a']
    assert row.ended
    assert row.add(TOKENIZER.encode('x').ids) == row.rest() == ''
    row = Pieces(TOKENIZER, ('abc',))
    assert row.add(TOKENIZER.encode('xab').ids) == 'x'
    assert row.rest() == 'ab'


def test_half_a_character_at_the_end_is_dropped():
    assert _joined(stream(_writer('ab日'), TOKENIZER, *_prompts(1), max_tokens=4)) == ['ab']


def test_a_closed_stream_computes_no_more():
    model = small.Script(TOKENIZER.get_vocab_size())
    pieces = stream(_writer('a' * 40, model=model), TOKENIZER, *_prompts(1), max_tokens=40, chunk=3)
    assert [next(pieces), next(pieces)] == [['a'], ['aaa']]
    pieces.close()
    jax.effects_barrier()
    assert model.calls == 4
    assert list(pieces) == []


def test_a_row_that_was_stopped_does_not_hold_the_others():
    model = small.Script(TOKENIZER.get_vocab_size())
    writer = _writer('a.' + 'b' * 40, 'cc', model=model)
    pieces = stream(writer, TOKENIZER, *_prompts(2), max_tokens=40, stops=['.'], chunk=4)
    assert _joined(pieces) == ['a', 'cc']
    jax.effects_barrier()
    assert model.calls == 5


def test_an_empty_stop_string():
    with pytest.raises(ConfigError, match='empty stop string'):
        next(stream(_writer('a'), TOKENIZER, *_prompts(1), max_tokens=4, stops=['']))
