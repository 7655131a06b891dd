"""The prompts read as published, for every kind of record."""

import pytest

from alm_jax.text.templates import TEMPLATES, prompts


def test_prompts():
    assert prompts('a dog {barking}')[0] == 'This is a sound of a dog {barking}.'
    assert prompts('jazz', 'music')[1] == 'The music in the style of jazz.'
    assert prompts('hello', 'speech') == ['hello']


@pytest.mark.parametrize('kind', ['sound', 'instrument', 'music', 'speech'])
def test_every_template_has_one_place_for_the_name(kind):
    assert all(template.count('{}') == 1 for template in TEMPLATES[kind])
