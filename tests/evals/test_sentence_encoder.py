"""The packaged sentence encoder: near in meaning is near in space, and padding changes nothing."""

import numpy as np
import pytest

from alm_jax.data.location import data_dir
from alm_jax.evals.metrics.captions import sentence_similarity
from alm_jax.evals.sentence_encoder import SentenceEncoder
from alm_jax.interop.packaged_weights import WeightsUnavailable


@pytest.fixture(scope='module')
def encoder():
    try:
        return SentenceEncoder(data_dir())
    except WeightsUnavailable as error:
        pytest.skip(str(error))


def test_a_text_has_the_same_bits_whatever_else_is_embedded(encoder):
    texts = ['A dog barks.', 'rain', *(f'Sound number {i} of a long list' for i in range(70))]
    together = encoder(texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for row in (0, 1, 71):
        np.testing.assert_array_equal(encoder(texts[row : row + 1])[0], together[row])
    longer = 'A dog barks.' + ' And it goes on barking for a very long time' * 5
    np.testing.assert_array_equal(encoder([longer, 'A dog barks.'])[1], together[0])


def test_known_similarities(encoder):
    # all-MiniLM-L6-v2's model card: these two are near, the third is not.
    near, far = sentence_similarity(
        ['That is a happy person', 'That is a happy person'],
        [['That is a very happy person'], ['Today is a sunny day']],
        encoder,
    )
    assert near == pytest.approx(0.94, abs=0.01)
    assert far == pytest.approx(0.26, abs=0.01)
