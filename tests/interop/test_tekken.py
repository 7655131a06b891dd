"""Tokenizers from tekken.json: a small one by hand, and the real one against its own library."""

import base64
import importlib.resources
import json

import pytest

from alm_jax.config import ConfigError
from alm_jax.interop import tekken

SPECIAL = ['<unk>', '<s>', '</s>', '[INST]', '[/INST]']
PATTERN = r' ?[^\s\p{L}\p{N}]+|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|\s+'


def content(pattern=PATTERN, merged=(b'he', b'll', b'hell', b' w', b'never')):
    """256 bytes and some merges; two of eight special tokens have no name."""
    words = [bytes([byte]) for byte in range(256)] + list(merged)
    return {
        'config': {
            'pattern': pattern,
            'default_vocab_size': 8 + 256 + 4,  # the last word is left out
            'default_num_special_tokens': 8,
        },
        'vocab': [
            {'rank': i, 'token_bytes': base64.b64encode(w).decode()} for i, w in enumerate(words)
        ],
        'special_tokens': [{'rank': i, 'token_str': token} for i, token in enumerate(SPECIAL)]
        + [{'rank': 7, 'token_str': '[AUDIO]'}],
    }


def test_words_are_merged_by_rank(tmp_path):
    file = tmp_path / 'tekken.json'
    file.write_text(json.dumps(content()))
    tokenizer = tekken.build(file)
    assert tokenizer.get_vocab_size() == 268
    byte, he, hell, space_w = 8, 8 + 256, 8 + 258, 8 + 259
    ids = tokenizer.encode('[INST][AUDIO]hello we hé[/INST]').ids
    text = [hell, byte + ord('o'), space_w, byte + ord('e'), byte + ord(' '), byte + ord('h')]
    assert ids == [1, 3, 7, *text, byte + 0xC3, byte + 0xA9, 4]
    assert tokenizer.decode(ids) == 'hello we hé'
    assert tokenizer.encode('he', add_special_tokens=False).ids == [he]
    assert tokenizer.id_to_token(6) == '<SPECIAL_6>'


@pytest.mark.parametrize('broken', ['{', '[]', '{"config": {}}', '{"config": {"pattern": 1}}'])
def test_other_files_are_named(broken, tmp_path):
    (tmp_path / 'tekken.json').write_text(broken)
    with pytest.raises(ConfigError, match=r'tekken\.json'):
        tekken.build(tmp_path / 'tekken.json')


def test_the_real_one(tmp_path):
    """130,000 words, and texts of many scripts."""
    library = pytest.importorskip('mistral_common.tokens.tokenizers.tekken').Tekkenizer
    data = importlib.resources.files('mistral_common') / 'data' / 'tekken_240911.json'
    real = json.loads(data.read_text())
    real['special_tokens'] = [dict(token) for token in library.DEPRECATED_SPECIAL_TOKENS]
    file = tmp_path / 'tekken.json'
    file.write_text(json.dumps(real))
    ours, theirs = tekken.build(file), library.from_file(file)
    texts = [
        'What do you hear in this recording?\n\n\tA dog, 12345 times!',
        'Ünïcödé — 你好世界 مرحبا нормально 😀🎉',
        '   leading and trailing   ',
        'supercalifragilisticexpialidocious antidisestablishmentarianism',
        'def f(x):\r\n    return x**2  # a comment',
    ]
    for text in texts:
        ids = ours.encode(text).ids
        assert ids == theirs.encode(text, bos=True, eos=False), text
        assert ours.decode(ids) == text
