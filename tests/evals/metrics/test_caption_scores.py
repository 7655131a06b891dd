"""Caption scores against pycocoevalcap and METEOR's own program on the same words."""

import pathlib
import re

import numpy as np
import pytest

from alm_jax.evals.metrics import bootstrap
from alm_jax.evals.metrics.bleu import bleu
from alm_jax.evals.metrics.captions import (
    caption_statistics,
    meteor_tables,
    sentence_similarity,
    vocabulary,
)
from alm_jax.evals.metrics.cider_d import cider_d
from alm_jax.evals.metrics.meteor import meteor
from alm_jax.evals.metrics.meteor_tables import normalised
from alm_jax.evals.metrics.ptb_words import ptb_words
from alm_jax.evals.metrics.rouge_l import rouge_l

TOLERANCE = 1e-9
# Synonyms, paraphrases, irregular forms and contractions of the sentences of the captions.
OTHER_WORDS = [
    text.split()
    for text in (
        'the hound yelped two times and afterwards the doors were slammed',
        "it 's raining hard onto the roof of a well-known building",
        'at the moment a person is talking as regards birds',
        'the automobile went past in the distance and people laughed',
    )
]
TEXTS = pathlib.Path(__file__).with_name('texts.txt').read_text().splitlines()


def theirs(candidates, references, times=None):
    """What pycocoevalcap takes, each clip as often as ``times`` says."""
    times = np.ones(len(candidates), int) if times is None else times
    rows = np.repeat(np.arange(len(candidates)), times)
    results = {i: [' '.join(candidates[row])] for i, row in enumerate(rows)}
    return {i: list(map(' '.join, references[row])) for i, row in enumerate(rows)}, results


@pytest.fixture(scope='module')
def weights(captions):
    """Of three resamples, in which some clips come twice and some not at all."""
    ids = [str(i // 2) for i in range(len(captions[0]))]
    return bootstrap.recording_weights(ids, resamples=3)


def test_bleu_of_resamples_is_that_of_the_repeated_corpus(captions, weights, coco):
    ours = bleu(*captions)(weights)
    for row, times in enumerate(weights.astype(int)):
        reference = coco('bleu.bleu').Bleu(4)
        expected, _ = reference.compute_score(*theirs(*captions, times), verbose=0)
        found = [ours[f'bleu_{n}'][row] for n in (1, 2, 3, 4)]
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


def test_rouge_l_of_every_clip(captions, coco):
    _, expected = coco('rouge.rouge').Rouge().compute_score(*theirs(*captions))
    np.testing.assert_allclose(rouge_l(*captions), expected, atol=TOLERANCE)


def test_cider_d_of_resamples_takes_rarity_from_the_repeated_corpus(captions, weights, coco):
    everything = np.vstack([np.ones(len(captions[0])), weights])
    ours = cider_d(*captions)(everything)['cider_d']
    for row, times in enumerate(everything.astype(int)):
        expected, _ = coco('cider.cider').Cider().compute_score(*theirs(*captions, times))
        assert ours[row] == pytest.approx(expected, rel=TOLERANCE)
    assert ours.std() > 0.01
    assert cider_d(*captions)(everything[0])['cider_d'] == pytest.approx(ours[0])


def test_cider_d_in_blocks_is_that_of_one(captions, weights, monkeypatch):
    whole = cider_d(*captions)(weights)['cider_d']
    monkeypatch.setattr('alm_jax.evals.metrics.cider_d._NUMBERS', 1)
    np.testing.assert_allclose(cider_d(*captions)(weights)['cider_d'], whole, rtol=1e-12)


def test_nothing_is_rare_in_a_corpus_of_one_clip(captions):
    candidates, references = captions
    assert cider_d(references[1][:1], references[1:2])(np.ones(1))['cider_d'] == 0
    assert len(candidates) == len(references)


def their_meteor(java, folder, candidates, references, *options):
    """(Scores of the clips, score of the corpus) by METEOR's own program."""
    four = [[*own, *own[:1] * (4 - len(own))] for own in references]
    test, reference = folder / 'test', folder / 'reference'
    test.write_text(''.join(' '.join(words) + '\n' for words in candidates))
    reference.write_text(''.join(' '.join(words) + '\n' for own in four for words in own))
    jar = ('-Xmx2G', '-jar', 'meteor-1.5.jar')
    said = java('meteor.meteor', *jar, test, reference, '-r', '4', '-l', 'en', *options)
    clips = [float(score) for score in re.findall(r'Segment \d+ score:\s+(\S+)', said)]
    assert len(set(clips)) > 20
    return clips, float(re.search(r'Final score:\s+(\S+)', said)[1])


def check_meteor(statistics, name, clips, corpus):
    found = statistics(np.eye(len(clips)))[name]
    np.testing.assert_allclose(found, clips, atol=TOLERANCE)
    assert statistics(np.ones(len(clips)))[name] == pytest.approx(corpus, abs=TOLERANCE)


def test_meteor_of_equal_words_and_stems(captions, java, tmp_path):
    own = captions[0][1:], captions[1][1:]  # an empty line ends the program
    options = ('-m', 'exact stem', '-w', '1.0 0.6', '-p', '0.85 0.2 0.6 0.5')
    check_meteor(meteor(*own), 'meteor_exact_stem', *their_meteor(java, tmp_path, *own, *options))


@pytest.mark.slow
def test_meteor_with_its_tables(captions, coco, java, tmp_path):
    words = [words for own in captions[1] for words in own]
    texts = list(map(' '.join, [*captions[0], *words, *OTHER_WORDS]))
    place = pathlib.Path(coco('meteor.meteor').__file__).parents[1]
    tables = meteor_tables(place, texts)
    assert tables.paraphrases
    own = [*captions[0][1:], *OTHER_WORDS], [*captions[1][1:], *([w] for w in words[:4])]
    theirs = their_meteor(java, tmp_path, *own, '-norm')
    normal = [normalised(w) for w in own[0]], [[normalised(w) for w in r] for r in own[1]]
    check_meteor(meteor(*normal, tables), 'meteor', *theirs)
    scores = caption_statistics(texts[:2], [texts[2:4], texts[3:5]], tables=tables)(np.ones(2))
    assert {'meteor', 'meteor_exact_stem'} <= set(scores)


def test_words_are_split_as_meteor_splits_them():
    words = "it 's a well-known half-a-dozen o'clock a.m. in the u.s. on jan. 5th and/or 10:30 e."
    split = (
        "it ' s a well known half a-dozen o 'clock am in the us on jan . 5th and / or 10 : 30 e ."
    )
    assert normalised(words.split()) == split.split()


def test_meteor_of_nothing_is_zero():
    score = meteor([[], ['rain']], [[['a', 'dog']], [['a', 'dog']]])(np.eye(2))
    np.testing.assert_array_equal(score['meteor_exact_stem'], [0, 0])


def test_published_values_of_aac_metrics():
    # README of aac-metrics 0.5
    candidates = ['a man is speaking', 'rain falls']
    references = [
        [
            'a man speaks.',
            'someone speaks.',
            'a man is speaking while a bird is chirping in the background',
        ],
        ['rain is falling hard on a surface'],
    ]
    scores = caption_statistics(candidates, references)(np.ones(2))
    assert round(float(scores['bleu_1']), 4) == 0.4278
    assert round(float(scores['cider_d']), 4) == 0.9614


def test_words_and_repetition_are_counted():
    texts = ['A dog barks.', 'and on and on and on and on']
    scores = caption_statistics(texts, [['A dog.'], ['It goes on.']])(np.eye(2))
    np.testing.assert_array_equal(scores['words'], [3, 8])
    np.testing.assert_array_equal(scores['repeated_trigrams'], [0, 1])
    assert vocabulary(texts) == 5


def test_similarity_is_the_mean_cosine_over_references():
    directions = {'a': [1, 0], 'b': [0, 1], 'c': [0.6, 0.8]}
    found = sentence_similarity(
        ['a', 'c'], [['a', 'b'], ['b']], lambda texts: np.array([directions[t] for t in texts])
    )
    np.testing.assert_allclose(found, [0.5, 0.8])


def test_words_are_those_of_the_tokenizer_that_coco_runs(java, coco):
    module = 'tokenizer.ptbtokenizer'
    # A caption's last full stop is read by what follows it, so another line stands between.
    said = java(
        module,
        *('-cp', 'stanford-corenlp-3.4.1.jar', 'edu.stanford.nlp.process.PTBTokenizer'),
        *('-preserveLines', '-lowerCase'),
        text=''.join(f'{line}\nbetween\n' for line in TEXTS),
    )
    dropped = {*coco(module).PUNCTUATIONS, ''}
    for text, line in zip(TEXTS, said.split('\n')[::2], strict=False):
        assert ptb_words(text) == [word for word in line.split(' ') if word not in dropped]


def test_words_without_java():
    assert ptb_words("It's loud, isn't it (very)?") == [
        *('it', "'s", 'loud', 'is', "n't", 'it', '-lrb-', 'very', '-rrb-')
    ]
    assert ptb_words(' . ') == []
