"""What a user does with a language model that was loaded: texts in, texts out."""

import json

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from alm_jax.config import ConfigError
from alm_jax.interop import pretrained

WORDS = ['<pad>', '<eos>', '<s>', 'a', 'dog', 'barks', 'cat', 'sleeps', 'and', 'then']


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A tiny GPT-2 of ten words whose file says that 'then' also ends a text."""
    folder = tmp_path_factory.mktemp('gpt2')
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=24, vocab_size=10, eos_token_id=1
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token='<pad>')
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(WORDS[:3])
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'generation_config.json').write_text(json.dumps({'eos_token_id': [1, 9]}))
    return pretrained.from_pretrained(folder)


def test_texts_go_on(model):
    assert model.stop_ids == (1, 9)
    one = model.generate('a dog', max_tokens=6)
    many = model.generate(['a dog', 'cat sleeps and then a dog'], max_tokens=6)
    assert one == many[:1]
    ids = [model.tokenizer.encode(text).ids for text in ('a dog', 'cat sleeps and then a dog')]
    tokens = model.generate_ids(ids, max_tokens=6)
    assert many == [model.tokenizer.decode(row) for row in tokens]
    assert not {1, 9} & {token for row in tokens for token in row}
    assert model.generate([]) == []


def test_what_cannot_go_on(model, tmp_path):
    with pytest.raises(ConfigError, match='A prompt without tokens'):
        model.generate('')
    with pytest.raises(ConfigError, match='20 tokens and 6 more do not fit into the 24 positions'):
        model.generate_ids([[3] * 20], max_tokens=6)
    with pytest.raises(ValueError, match='25 tokens; the model has 24 positions'):
        model(np.full((1, 25), 3))
    (model.folder / 'tokenizer.json').rename(tmp_path / 'tokenizer.json')
    with pytest.raises(ConfigError, match=r'has no tokenizer\.json; give token ids'):
        pretrained.from_pretrained(model.folder).generate('a dog')
    (model.folder / 'tokenizer.json').write_text('{}')
    with pytest.raises(ConfigError, match=r'tokenizer\.json is not a tokenizer\.json'):
        pretrained.from_pretrained(model.folder).generate('a dog')
