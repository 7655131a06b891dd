"""Tokenizers of folders: files, special tokens, and texts that would forge them."""

import json
import random

import chat_templates
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from travelling import travelled

from alm_jax.config import ConfigError
from alm_jax.text.language_tokenizer import LanguageTokenizer

few = settings(max_examples=60, deadline=None, derandomize=True)
KINDS = {
    'byte_level': chat_templates.byte_level(),
    'sentence_piece': chat_templates.sentence_piece(),
}
fragments = st.sampled_from(
    ['<|im_end|>', '<|im_', 'end|>', '<s>', '</s>', '</', 's>', '<', ' a dog', '\n', 'ß', '<0x41>']
)


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return KINDS[request.param]


def test_what_a_folder_says(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    for loaded in (
        LanguageTokenizer.load(tmp_path),
        LanguageTokenizer.load(tmp_path / 'tokenizer.json'),
        travelled(tokenizer),
    ):
        assert loaded.sha256 == tokenizer.sha256
        assert loaded.chat_template == tokenizer.chat_template
        assert loaded.encode([('A dog.', False)]) == tokenizer.encode([('A dog.', False)])
    (tmp_path / 'chat_template.jinja').write_text('{{ messages }}')
    with_template = LanguageTokenizer.load(tmp_path)
    assert with_template.chat_template == '{{ messages }}'
    assert with_template.sha256 != tokenizer.sha256


def test_begin_and_end():
    assert (KINDS['byte_level'].begin, KINDS['byte_level'].end) == ('', '<|im_end|>')
    assert (KINDS['sentence_piece'].begin, KINDS['sentence_piece'].end) == ('<s>', '</s>')


def test_an_end_that_no_file_names(tmp_path):
    KINDS['byte_level'].save(tmp_path)
    (tmp_path / 'tokenizer_config.json').unlink()
    bare = LanguageTokenizer.load(tmp_path)
    assert (bare.end, bare.chat_template) == ('<|endoftext|>', '')


def test_templates_by_name_and_in_the_processor(tmp_path):
    KINDS['byte_level'].save(tmp_path)
    named = [{'name': 'tool_use', 'template': 'a'}, {'name': 'default', 'template': 'b'}]
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'chat_template': named}))
    assert LanguageTokenizer.load(tmp_path).chat_template == 'b'
    (tmp_path / 'tokenizer_config.json').write_text('{}')
    (tmp_path / 'chat_template.json').write_text(json.dumps({'chat_template': 'c'}))
    assert LanguageTokenizer.load(tmp_path).chat_template == 'c'


@pytest.mark.parametrize('content', ['[1]', '{'])
def test_files_that_are_none(tmp_path, content):
    with pytest.raises(ConfigError, match=f'no tokenizer.json in {tmp_path}'):
        LanguageTokenizer.load(tmp_path)
    KINDS['byte_level'].save(tmp_path)
    (tmp_path / 'tokenizer_config.json').write_text(content)
    with pytest.raises(
        ConfigError, match=r'tokenizer_config\.json: .*(not JSON|expected an object)'
    ):
        LanguageTokenizer.load(tmp_path)
    (tmp_path / 'tokenizer.json').write_text(content)
    with pytest.raises(ConfigError, match=r'tokenizer\.json is no tokenizer'):
        LanguageTokenizer.load(tmp_path)


def test_harmless_text_is_tokenised_as_one(tokenizer):
    """Where spans meet leaves no trace."""
    spans = [('USER: ', True), ('a dog ba', False), ('rks', False), (' ASSISTANT:', True)]
    whole = tokenizer._full.encode('USER: a dog barks ASSISTANT:', add_special_tokens=False)
    assert tokenizer.encode(spans) == whole.ids


@pytest.mark.parametrize('kind', KINDS)
def test_no_text_of_a_user_becomes_a_special_token(kind):
    tokenizer = KINDS[kind]
    end = tokenizer.end

    @few
    @given(st.lists(fragments, max_size=6), st.lists(fragments, max_size=6))
    def check(first, second):
        spans = [(''.join(first), False), (end, True), (''.join(second), False)]
        ids = tokenizer.encode(spans)
        control = set(tokenizer.control.values())
        assert [i for i in ids if i in control] == [tokenizer.control[end]]
        parts = [ids[: ids.index(tokenizer.control[end])], ids[ids.index(tokenizer.control[end]) :]]
        said = [tokenizer.decode(part) for part in parts]
        # A sentence piece decoder drops the space in front of all, which it wrote itself.
        assert said == [''.join(first), ''.join(second)] or kind == 'sentence_piece'
        assert ''.join(said).replace(' ', '') == ''.join([*first, *second]).replace(' ', '')

    check()


def test_markup_keeps_its_special_tokens(tokenizer):
    ids = tokenizer.encode([(f'USER: {tokenizer.end}', True), (tokenizer.end, False)])
    assert ids.count(tokenizer.control[tokenizer.end]) == 1


def test_training_does_not_depend_on_order():
    texts = [f'A {animal} {verb}.' for animal in ('dog', 'cat', 'cow') for verb in ('barks', 'is')]
    shuffled = random.Random(0).sample(texts, len(texts))
    trained = LanguageTokenizer.train(texts)
    assert trained.sha256 == LanguageTokenizer.train(shuffled).sha256
    assert trained.decode(trained.encode([('Größe: 5 🐕', False)])) == 'Größe: 5 🐕'
    assert trained.chat_template
