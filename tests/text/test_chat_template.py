"""Templates give what transformers gives, and none of them runs away with the machine."""

import datetime
import os
import pathlib
import time

import chat_templates
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from alm_jax.config import ConfigError
from alm_jax.text import chat_template

few = settings(max_examples=8, deadline=None, derandomize=True)
SPECIAL = {'bos_token': '<s>', 'eos_token': '</s>'}
texts = st.text(st.characters(exclude_categories=('Cs',)), max_size=12) | st.sampled_from(
    [
        '',
        ' both ends ',
        'it\'s "so"\n',
        '{{ 7 * 7 }}',
        '{% raw %}',
        '<b>&amp;',
        'größer 🐕',
        '<think>\nso\n</think>\n\nyes',
    ]
)


def turns(draw, system):
    said = draw(st.lists(texts, min_size=1, max_size=5))
    roles = ('user', 'assistant')
    messages = [{'role': roles[i % 2], 'content': text} for i, text in enumerate(said)]
    first = [{'role': 'system', 'content': draw(texts)}] if system else []
    return first + messages


@pytest.fixture(scope='module')
def reference():
    full = chat_templates.sentence_piece()._full
    return PreTrainedTokenizerFast(tokenizer_object=full, **SPECIAL)


@pytest.mark.parametrize('name', chat_templates.TEMPLATES)
def test_the_text_is_that_of_transformers(name, reference):
    template = chat_templates.TEMPLATES[name]

    @few
    @given(st.data())
    def check(data):
        messages = turns(data.draw, system=data.draw(st.booleans()) and name != 'renamed')
        if name == 'hearing' and data.draw(st.booleans()):
            audio = {'type': 'audio', 'audio_url': 'x.wav'}
            messages[-1]['content'] = [audio, {'type': 'text', 'text': messages[-1]['content']}]
        generates = data.draw(st.booleans())
        tools = [{'name': 'beep', 'html': '<&>'}] if data.draw(st.booleans()) else None
        got = chat_template.render(
            template,
            messages,
            special_tokens=SPECIAL,
            add_generation_prompt=generates,
            tools=tools,
        )
        want = reference.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=generates,
            tools=tools,
        )
        assert got == want

    check()


def test_the_date_is_that_of_the_call_unless_given():
    template = "{{ strftime_now('%Y-%m-%d') }}"
    day = datetime.datetime(2024, 2, 29)
    assert chat_template.render(template, [], now=day) == '2024-02-29'
    assert chat_template.render(template, []) == datetime.datetime.now().strftime('%Y-%m-%d')


HOSTILE = {
    'loops of loops': '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}'
    '{% endfor %}',
    'a long product': "{{ 'x' * 10 ** 10 }}",
    'doubling': '{% set n = namespace(x="ab") %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}'
    '{% endfor %}',
    'padding': "{{ '%09999999999d' % 3 }}",
    'centring': "{{ 'x' | center(9999999999) }}",
    'a large number': '{{ 10 ** (10 ** 9) }}',
    'recursion': '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}',
    'much text': '{% for a in range(99999) %}xxxxxxxxxxxxxxxxxxxx{% endfor %}',
    'deep brackets': '{{ ' + '(' * 50_000 + '1' + ')' * 50_000 + ' }}',
}


@pytest.mark.parametrize('name', HOSTILE)
def test_what_takes_too_much_is_stopped(name, monkeypatch):
    monkeypatch.setattr(chat_template, 'MAX_SECONDS', 1)
    began = time.perf_counter()
    with pytest.raises(ConfigError, match='the chat template cannot be used: ') as stopped:
        chat_template.render(HOSTILE[name], [])
    assert time.perf_counter() - began < 20
    assert len(str(stopped.value)) < 1200


def test_what_the_clock_stops(monkeypatch):
    """Waiting takes no time of the processor."""
    monkeypatch.setattr(chat_template, '_PATIENCE', 0.01)
    with pytest.raises(ConfigError, match=r'takes more than 0\.01 s'):
        chat_template.render('never seen {{ messages }}', [])


@pytest.mark.parametrize(
    ('template', 'message'),
    [
        ("{{ ''.__class__.__mro__ }}", 'SecurityError'),
        ('{{ messages.append(1) }}', 'SecurityError'),
        ("{% include 'other' %}", 'no loader'),
        ('{% if %}', 'TemplateSyntaxError'),
        ("{{ raise_exception('no system prompt') }}", 'no system prompt'),
        ('x' * 200_001, 'has 200,001 characters'),
    ],
)
def test_mistakes_and_break_outs_are_told(template, message):
    with pytest.raises(ConfigError, match=message):
        chat_template.render(template, [], name='the chat template of here')


def test_the_process_knows_nothing_of_ours(monkeypatch):
    """No secrets in its environment, whatever may get out of the sandbox, and no way to a file."""
    monkeypatch.setenv('SECRET_TOKEN', 'abc')
    seen = []
    run = chat_template.subprocess.run
    monkeypatch.setattr(
        chat_template.subprocess, 'run', lambda *a, **k: seen.append(k['env']) or run(*a, **k)
    )
    assert chat_template.render('alone {{ messages | length }}', []) == 'alone 0'
    assert set(seen[0]) <= {'PATH', 'LD_LIBRARY_PATH', 'SYSTEMROOT'}
    assert 'SECRET_TOKEN' in os.environ
    source = pathlib.Path(chat_template._PROCESS).read_text()
    assert 'alm_jax' not in source


def test_one_conversation_is_rendered_once(monkeypatch):
    messages = [{'role': 'user', 'content': 'only here'}]
    first = chat_template.render(chat_templates.CHATML, messages, now=datetime.datetime(2024, 1, 1))
    monkeypatch.setattr(chat_template.subprocess, 'run', None)
    again = chat_template.render(chat_templates.CHATML, messages, now=datetime.datetime(2024, 1, 1))
    assert first == again
