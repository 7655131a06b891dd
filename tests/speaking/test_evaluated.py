"""A pretrained model that writes, under the evaluators of captioning and question answering."""

import json

import pytest

from alm_jax.config import ConfigError
from alm_jax.evals.binary import Evaluation
from alm_jax.evals.captioning import Captioning
from alm_jax.evals.pretrained import load_model
from alm_jax.evals.question_answering import QuestionAnswering

OPTIONS = ('limit=3', 'max_tokens=6', 'conditions=["silence"]')


@pytest.fixture(scope='module')
def model(chat_lm):
    return load_model(chat_lm)


def test_captions_are_what_the_model_writes(model, recordings_data, tmp_path, capsys):
    options = (*OPTIONS, 'prompt=a dog barks')
    data = {'data': recordings_data, 'options': options, 'out': str(tmp_path)}
    found = Evaluation(Captioning, 'captioning', **data)(model)
    (path,) = tmp_path.glob('evals/captioning/*.json')
    content = json.loads(path.read_text())
    assert path.name == 'final.json'
    assert content['step'] is None
    assert content['checkpoint_sha256'] == model.checkpoint_sha256
    assert all(len(content[key]) == 64 for key in ('front_end_sha256', 'protocol_sha256'))
    assert path.with_suffix('.html').is_file()
    said = [line['prediction'] for line in found.predictions]
    assert any(said)
    assert len({*said, *(line['silence'] for line in found.predictions)}) > 1  # it hears
    assert 'captioning, pretrained' in capsys.readouterr().out


def test_questions_are_asked_in_its_chat_template(model, recordings_data, tmp_path):
    data = {'data': recordings_data, 'options': ('choices=2', *OPTIONS), 'out': str(tmp_path)}
    found = Evaluation(QuestionAnswering, 'asked', **data)(model)
    assert len(found.predictions) == 3
    assert found.baselines['chance_choice_accuracy'] == 0.5


def test_mistakes_are_named(model, tiny_run, recordings_data):
    with pytest.raises(ConfigError, match='give --out'):
        Evaluation(Captioning, 'captioning', data=recordings_data)(model)
    with pytest.raises(ConfigError, match='give --data'):
        Evaluation(Captioning, 'captioning', out='x')(model)
    with pytest.raises(ConfigError, match='embeds audio and text'):
        load_model(tiny_run)
