"""The captioning evaluator on real recordings, with a system whose captions can be told."""

import json
import os
import pathlib

import numpy as np
import pytest
from describers import Loudness

from alm_jax.config import ConfigError
from alm_jax.evals import hearing, records, result
from alm_jax.evals.answers_page import write_page
from alm_jax.evals.build import build_evaluators
from alm_jax.evals.captioning import Captioning
from alm_jax.evals.metrics import captions, meteor_tables
from alm_jax.evals.report import write_report
from alm_jax.evals.shuffling import partners

SCORES = ('bleu_1', 'bleu_4', 'rouge_l', 'meteor_exact_stem', 'cider_d', 'minilm_similarity')


@pytest.fixture(scope='module')
def system():
    return Loudness()


@pytest.fixture(scope='module')
def evaluator(system, recordings_data, tiny_run):
    return Captioning(
        system,
        data=recordings_data,
        train=recordings_data,
        two_tower=str(tiny_run),
    )


@pytest.fixture(scope='module')
def found(evaluator):
    return evaluator.run({}, {})


@pytest.fixture(scope='module')
def read(recordings_data):
    """The records in id order."""
    source = records.open_sorted(recordings_data, '', {})
    return [source[row] for row in range(len(source))]


def test_scores_are_those_of_the_captions_written(found, read, system):
    said = [system.describe(record['audio'], []) for record in read]
    said = [' '.join(text.split()) for text in said]
    assert len(set(said)) == 2
    lines = found.predictions
    assert [line['prediction'] for line in lines] == said
    assert [line['id'] for line in lines] == [record['id'] for record in read]
    assert [line['references'] for line in lines] == [record['captions'] for record in read]
    assert (found.n, found.excluded) == (17, 0)
    similarity = np.array([line['minilm_similarity'] for line in lines])
    references = [record['captions'] for record in read]
    expected = captions.caption_statistics(said, references, similarity)(np.ones(17))
    for name in SCORES:
        assert found.metrics[name] == pytest.approx(float(expected[name]), abs=1e-4)
        low, high = found.metrics[f'{name}_ci95']
        assert low < found.metrics[name] < high
    assert found.metrics['vocabulary'] == len(
        {'the', 'sound', 'of', 'breaking', 'glass', 'a', 'door'}
    )


def test_conditions_are_scored_on_the_same_clips(found):
    table = found.tables['conditions']
    assert list(table) == ['silence', 'shuffled', 'most_frequent', 'retrieved']
    assert {line['silence'] for line in found.predictions} == {'Nothing.'}
    assert table['silence']['metrics']['cider_d'] == 0
    assert table['silence']['difference']['cider_d'] == pytest.approx(found.metrics['cider_d'])
    assert {line['most_frequent'] for line in found.predictions} == {'The sound of fire.'}
    own = [caption for line in found.predictions for caption in line['references']]
    assert {line['retrieved'] for line in found.predictions} <= set(own)
    for name in table:
        gap = found.metrics[f'over_{name}_cider_d']
        assert gap == table[name]['difference']['cider_d']
        assert found.baselines[f'{name}_cider_d'] == table[name]['metrics']['cider_d']
    shuffled = [line for line in found.predictions if 'shuffled' in line]
    assert table['shuffled']['n'] == len(shuffled) > 1
    again = captions.caption_statistics(
        [line['shuffled'] for line in shuffled], [line['references'] for line in shuffled]
    )(np.ones(len(shuffled)))
    assert table['shuffled']['metrics']['cider_d'] == pytest.approx(float(again['cider_d']))


def test_a_shuffled_clip_is_of_another_label_and_source_and_as_long(found, read, system):
    by_id = {record['id']: record for record in read}
    taken = []
    for line in found.predictions:
        if 'shuffled' not in line:
            continue
        own, other = by_id[line['id']], by_id[line['shuffled_with']]
        assert own['label'] != other['label']
        assert own['recording_id'] != other['recording_id']
        assert np.ceil(own['duration'] / 2) == np.ceil(other['duration'] / 2)
        assert line['shuffled'] == ' '.join(system.describe(other['audio'], []).split())
        taken.append(other['id'])
    assert len(set(taken)) == len(taken)


def test_partners_are_of_the_nearest_length():
    found = partners(
        [1.0, 1.1, 5.0, 5.2, 1.05, 90.0],
        [1, 1, 3, 3, 1, 45],
        ['dog', 'cat', 'dog', 'cat', 'dog', 'cat'],
        ['one', 'two', 'one', 'two', 'two', 'three'],
    )
    # The fifth has the label of the first and the source of the second; the last is alone.
    np.testing.assert_array_equal(found, [1, 0, 3, 2, -1, -1])


def test_the_shares_of_three_processes_make_the_whole(monkeypatch, system, read):
    asked = [
        hearing.Asked(lambda record=record: [(record['audio'], record['rate'])], [('What?', None)])
        for record in read
    ]
    whole = hearing.answers(system, {}, {}, asked, 8)
    parts = []
    monkeypatch.setattr('jax.process_count', lambda: 3)
    monkeypatch.setattr(hearing.distributed, 'gather_bytes', lambda mine: parts.append(mine) or [])
    for process in range(3):
        monkeypatch.setattr('jax.process_index', lambda process=process: process)
        hearing.answers(system, {}, {}, asked, 8)
    monkeypatch.setattr(hearing.distributed, 'gather_bytes', lambda mine: parts)
    assert hearing.answers(system, {}, {}, asked, 8) == whole
    assert len(set(map(len, parts))) > 1  # 17 do not divide by 3


def test_the_two_towers_are_named_by_their_hash(found, evaluator, model):
    assert found.protocol['options']['two_tower'] == model.checkpoint_sha256
    assert evaluator.run({}, {}).predictions == found.predictions


def test_what_is_not_computed_is_said_by_name(found):
    missing = {'spice', 'spider', 'fense'} | (set() if meteor_tables.folder() else {'meteor'})
    assert missing == set(found.tables['unavailable'])
    assert not missing & set(found.metrics)


@pytest.mark.slow
def test_meteor_where_its_tables_are_installed(system, recordings_data, monkeypatch):
    place = pathlib.Path(os.environ.get('ALM_JAX_REFERENCES', ''), 'pycocoevalcap')
    if not (place / 'meteor/meteor-1.5.jar').is_file():
        pytest.skip('pycocoevalcap is in no folder that ALM_JAX_REFERENCES names')
    monkeypatch.setattr(meteor_tables, 'folder', lambda: place)
    found = Captioning(system, data=recordings_data, conditions=['silence'], limit=6).run({}, {})
    assert 'meteor' not in found.tables['unavailable']
    low, high = found.metrics['meteor_ci95']
    assert low < found.metrics['meteor'] < high
    assert found.tables['conditions']['silence']['metrics']['meteor'] < found.metrics['meteor']


def test_files_and_a_page_to_listen_to(found, tmp_path):
    path = result.write(found, tmp_path, 'captioning', 7, 'c' * 64)
    lines = [json.loads(line) for line in path.with_suffix('.jsonl').read_text().splitlines()]
    assert lines == found.predictions
    content = json.loads(path.read_text())
    assert content['metrics']['over_shuffled_cider_d_ci95']
    page = write_page(path).read_text()
    assert page.count('<audio ') == 17
    assert page.count('data:image/png') == 17
    assert 'hearing another clip' in page
    assert 'One hears breaking glass, take 1.' in page
    assert '<script' not in page
    assert 'http' not in page


def test_the_report_has_the_scores_and_writes_the_page(found, tiny_run, tmp_path):
    (tmp_path / 'config.json').write_text((tiny_run / 'config.json').read_text())
    result.write(found, tmp_path, 'captions', 2, 'c' * 64)
    page = write_report(tmp_path).read_text()
    assert 'over shuffled cider d' in page
    assert 'evals/captions/2.html' in page
    assert (tmp_path / 'evals/captions/2.html').is_file()


def test_transcripts_are_scored_by_errors(system, recordings, tmp_path):
    for name in ('fire_small', 'fire_large'):
        (tmp_path / f'{name}.ogg').symlink_to(recordings / f'{name}.ogg')
    (tmp_path / 'c.csv').write_text(
        'file,caption,transcript,kind\n'
        'fire_small.ogg,x,The sound of breaking glass,speech\n'
        'fire_large.ogg,x,The round of breaking glass!,speech\n'
    )
    data = f'folder:{tmp_path}?captions=c.csv'
    evaluator = Captioning(system, data=data, text='transcript', conditions=())
    found = evaluator.run({}, {})
    assert {line['prediction'] for line in found.predictions} == {'The sound of breaking glass.'}
    assert found.metrics['wer'] == pytest.approx(1 / 10)
    assert 'cider_d' not in found.metrics
    assert found.predictions[0]['prompt'] == 'Write down what is said.'


def test_a_limit_spreads_over_labels(system, recordings_data):
    found = Captioning(system, data=recordings_data, conditions=(), limit=6).run({}, {})
    assert (found.n, found.excluded) == (6, 11)
    assert len({line['references'][0] for line in found.predictions}) >= 5


def test_mistakes_are_named(model, system, recordings_data):
    for options, message in [
        ({'text': 'caption'}, "Did you mean 'captions'"),
        ({'conditions': ['silent']}, "Did you mean 'silence'"),
        ({'two_tower': 'runs/x'}, 'needs train'),
        ({'text': 'transcript', 'where': {}}, '0 records with transcript'),
    ]:
        with pytest.raises(ConfigError, match=message):
            Captioning(system, data=recordings_data, **options)
    with pytest.raises(ConfigError, match='embeds and writes nothing'):
        Captioning(model.predictors, data=recordings_data)


def test_it_is_built_from_a_config(model, system, recordings_data):
    config = model.config.copy_and_resolve_references()
    config.evals = {'captions': {'evaluator': 'captioning', 'data': recordings_data, 'every': 5}}
    assert isinstance(build_evaluators(config, system)['captions'].evaluator, Captioning)
