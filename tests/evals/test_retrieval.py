"""Retrieval scores of a random model, against a loop over queries on the model's own embeddings."""

import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.data import sources
from alm_jax.evals.retrieval import Retrieval


@pytest.fixture(scope='module')
def evaluator(model, recordings_data):
    return Retrieval(model.predictors, data=recordings_data)


@pytest.fixture(scope='module')
def found(model, evaluator):
    return evaluator.run(model.params, model.extra)


@pytest.fixture(scope='module')
def ranks(model, recordings_data):
    """Ranks by sorting, one query at a time: {'text_to_audio': [...], 'audio_to_text': [...]}."""
    source = sources.open_source(recordings_data, '')
    read = sorted((source[i] for i in range(len(source))), key=lambda r: r['id'])
    audio = [model.embed_audio(r['audio'], sampling_rate=r['rate'])[0].astype(float) for r in read]
    texts = list(dict.fromkeys(caption for r in read for caption in r['captions']))
    text = [model.embed_text(t)[0].astype(float) for t in texts]
    result = {'text_to_audio': [], 'audio_to_text': []}
    for i, clip in enumerate(read):
        for caption in clip['captions']:
            scores = np.round([a @ text[texts.index(caption)] for a in audio], 9)
            order = sorted(range(len(read)), key=lambda j: (-scores[j], j))
            carriers = [j for j, other in enumerate(read) if caption in other['captions']]
            result['text_to_audio'].append(1 + min(map(order.index, carriers)))
        scores = np.round([audio[i] @ t for t in text], 9)
        order = sorted(range(len(texts)), key=lambda j: (-scores[j], j))
        own = [texts.index(caption) for caption in clip['captions']]
        result['audio_to_text'].append(1 + min(map(order.index, own)))
    return result


@pytest.mark.parametrize('direction', ['text_to_audio', 'audio_to_text'])
def test_scores_equal_a_loop_over_queries(found, ranks, direction):
    expected = np.array(ranks[direction])
    assert len(expected) == {'text_to_audio': 28, 'audio_to_text': 17}[direction]
    for k in (1, 5, 10):
        assert found.metrics[f'r_at_{k}_{direction}'] == pytest.approx(np.mean(expected <= k))
    reciprocal = [1 / r if r <= 10 else 0 for r in expected]
    assert found.metrics[f'map_at_10_{direction}'] == pytest.approx(np.mean(reciprocal))
    assert found.metrics[f'median_rank_{direction}'] == np.median(expected)


def test_intervals_hold_the_value(found):
    for name, value in found.scalars.items():
        low, high = found.metrics[f'{name}_ci95']
        assert low <= value <= high, name


def test_captions_are_counted(found):
    options = found.protocol['options']
    assert (options['captions'], options['distinct_captions']) == (28, 17)


def test_chance(found):
    # One clip in 17 is the answer to each of the 11 own captions; the 17 shared ones have 1 to 4.
    shared = 3 * 3 + 3 * 3 + 3 * 3 + 3 * 3 + 4 * 4 + 1
    assert found.baselines['chance_r_at_1_text_to_audio'] == pytest.approx((11 + shared) / 28 / 17)


def test_examples_and_similarity(found):
    assert len(found.examples) >= 6  # ten clips asked for; those of a label share their caption
    for example in found.examples:
        assert len(example['results']) == 5
        scores = [r['score'] for r in example['results']]
        assert scores == sorted(scores, reverse=True)
    table = found.tables['similarity']
    assert np.array(table['values']).shape == (len(table['captions']), len(table['clips']))


def test_another_text_field(model, recordings_data):
    with pytest.raises(ConfigError, match='0 records with transcript'):
        Retrieval(model.predictors, data=recordings_data, text='transcript')
    with pytest.raises(ConfigError, match="Did you mean 'transcript'"):
        Retrieval(model.predictors, data=recordings_data, text='transcripts')


def test_equal_captions_differ_in_case_spaces_and_full_stop(model, recordings, tmp_path):
    for name in ('fire_small', 'fire_large', 'tnt_explode'):
        (tmp_path / f'{name}.ogg').symlink_to(recordings / f'{name}.ogg')
    (tmp_path / 'c.csv').write_text(
        'file,caption\n'
        'fire_small.ogg,A  Fire\n'
        'fire_large.ogg,a fire.\n'
        'tnt_explode.ogg,An explosion\n'
    )
    evaluator = Retrieval(model.predictors, data=f'folder:{tmp_path}?captions=c.csv')
    found = evaluator.run(model.params, model.extra)
    assert found.protocol['options']['distinct_captions'] == 2
    assert found.baselines['chance_r_at_1_text_to_audio'] == pytest.approx((2 + 2 + 1) / 9)
