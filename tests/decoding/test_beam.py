"""Beam search against transformers', token for token, and against all texts there are."""

import itertools

import jax
import numpy as np
import pytest
import small
import torch

from alm_jax.config import ConfigError
from alm_jax.decoding.beam import Beams, search
from alm_jax.decoding.generate import Writer, padded
from alm_jax.decoding.sampling import Sampling
from alm_jax.models.text.decoder import Size

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 14], [12, 3], [20, 21, 22, 23], [30, 31, 32]]
TOKENS = 16
STOPS = (2, 3)


def _theirs(reference, beams, **options):
    """(texts of each row without their ends, scores), from a batch that is padded in front."""
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in PROMPTS])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in PROMPTS])
    found = reference.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=TOKENS,
        do_sample=False,
        num_beams=beams.width,
        num_return_sequences=beams.width,
        length_penalty=beams.length_penalty,
        early_stopping=beams.early_stopping,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    rows = found.sequences[:, longest:].tolist()
    texts = [list(itertools.takewhile(lambda token: token not in STOPS, row)) for row in rows]
    return texts, found.sequences_scores.numpy()


def _ours(model, beams, **options):
    ids, mask, _ = padded(PROMPTS)
    writer = Writer(model.module, model.params, stop_ids=model.stop_ids)
    found = search(writer, ids, mask, beams=beams, max_tokens=TOKENS, **options)
    flat = zip(found.tokens.reshape(-1, TOKENS), found.count.ravel())
    return found, [tokens[:count].tolist() for tokens, count in flat]


@pytest.mark.parametrize(
    ('width', 'penalty', 'early'),
    [(3, 1.0, False), (4, 2.0, True), (2, -1.0, 'never'), (3, 0.0, 'never'), (1, 1.0, False)],
)
def test_texts_equal_transformers(pair, width, penalty, early):
    """All beams of all rows, prompts of unequal lengths, ends by either stop token."""
    model, reference = pair
    beams = Beams(width, penalty, early)
    if width == 1:  # transformers takes it for greedy decoding
        ids = _ours(model, beams)[0].ids()
        assert ids == model.generate_ids(PROMPTS, max_tokens=TOKENS)
        return
    want, scores = _theirs(reference, beams)
    found, got = _ours(model, beams)
    assert got == want
    assert len({len(text) for text in want}) > 2
    np.testing.assert_allclose(found.scores.ravel(), scores, rtol=1e-5, atol=1e-5)


def test_a_penalty_and_a_least_length_equal_transformers(pair):
    model, reference = pair
    beams = Beams(3, 1.0, False)
    want, _ = _theirs(reference, beams, repetition_penalty=1.3, min_new_tokens=7)
    sampling = Sampling(repetition_penalty=1.3, min_tokens=7)
    assert _ours(model, beams, sampling=sampling)[1] == want


def test_a_row_does_not_depend_on_the_others(pair):
    model, _ = pair
    beams = Beams(3)
    together = model.generate_ids(PROMPTS, max_tokens=TOKENS, beams=beams)
    for row, prompt in enumerate(PROMPTS):
        assert (
            model.generate_ids([prompt], max_tokens=TOKENS, beams=beams) == together[row : row + 1]
        )


def test_wide_enough_it_finds_the_best_of_all():
    """Of the 5 ** 3 texts of three tokens, with their scores."""
    module, params = small.decoder(Size(width=16, depth=1, heads=2, mlp_width=32, vocabulary=5))
    prompt = [1, 2, 4]
    every = np.array(list(itertools.product(range(5), repeat=3)))
    ids = np.concatenate([np.tile(prompt, (len(every), 1)), every], axis=1)
    logits = jax.jit(lambda ids: module.apply({'params': params}, ids)['logits'])(ids)
    likely = np.asarray(jax.nn.log_softmax(logits[:, 2:5]))
    scores = np.take_along_axis(likely, every[..., None], axis=2).sum(axis=(1, 2))
    order = np.argsort(-scores)[:10]
    writer, batch = Writer(module, params), padded([prompt])[:2]
    found = search(writer, *batch, beams=Beams(25, 1.0), max_tokens=3)
    np.testing.assert_array_equal(found.tokens[0, :10], every[order])
    np.testing.assert_allclose(found.scores[0, :10], scores[order] / 3, rtol=1e-5)


def test_what_cannot_be_searched():
    with pytest.raises(ConfigError, match='width is 0'):
        Beams(0)
    with pytest.raises(ConfigError, match="early_stopping is 'always'"):
        Beams(early_stopping='always')
    writer = Writer(*small.decoder())
    batch = padded([[1]])[:2]
    with pytest.raises(ConfigError, match='beam search has none'):
        search(writer, *batch, beams=Beams(), max_tokens=1, sampling=Sampling(0.5))
    with pytest.raises(ConfigError, match='max_tokens is 0'):
        search(writer, *batch, beams=Beams(), max_tokens=0)
