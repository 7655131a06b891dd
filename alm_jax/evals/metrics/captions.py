"""All scores of generated captions, as one function of weights (see ``bootstrap``)."""

import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from alm_jax.evals.metrics.bleu import bleu, ngrams
from alm_jax.evals.metrics.bootstrap import weighted_mean
from alm_jax.evals.metrics.cider_d import cider_d
from alm_jax.evals.metrics.meteor import meteor
from alm_jax.evals.metrics.meteor_tables import Tables, normalised, read
from alm_jax.evals.metrics.ptb_words import ptb_words
from alm_jax.evals.metrics.rouge_l import rouge_l

Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]
# What papers report and is not computed here, with the reason; nothing else goes by these names.
UNAVAILABLE = {
    'spice': 'its parser of scene graphs (Stanford CoreNLP, in Java) is a download.',
    'spider': 'it is the mean of CIDEr-D and SPICE, and SPICE is not available.',
    'meteor': 'its tables are not installed (pip install alm_jax[meteor], 104 MB, no Java); '
    'meteor_exact_stem is the part that needs none.',
    'fense': 'its detector of fluency errors is a download; minilm_similarity is a sentence '
    'similarity as FENSE has it, by another encoder and without that penalty.',
}


def caption_statistics(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    similarity: np.ndarray | None = None,
    tables: Tables | None = None,
) -> Statistics:
    """Scores of n captions as a function of weights [..., n].

    Args:
      candidates: what was written about each clip.
      references: what people wrote about it, at least one text each.
      similarity: [n], of sentence embeddings, see ``sentence_similarity``.
      tables: of METEOR, for these texts, see ``meteor_tables``.

    Returns:
      bleu_1 to bleu_4, rouge_l, meteor_exact_stem, meteor with its tables, cider_d (0 to 10),
      minilm_similarity if given, words (mean number) and repeated_trigrams (share of captions in
      which a run of three words comes twice: what a loop looks like, no measure of fluency).
    """
    own = [ptb_words(text) for text in candidates]
    given = [[ptb_words(text) for text in texts] for texts in references]
    corpus = [metric(own, given) for metric in (bleu, meteor, cider_d)]
    if tables:
        theirs = [[normalised(words) for words in texts] for texts in given]
        corpus.append(meteor([normalised(words) for words in own], theirs, tables))
    means = {'rouge_l': rouge_l(own, given)}
    if similarity is not None:
        means['minilm_similarity'] = similarity
    means['words'] = np.array([len(words) for words in own])
    means['repeated_trigrams'] = np.array(
        [max(ngrams(words, 3).values(), default=0) > 1 for words in own]
    )

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        scores = {}
        for metric in corpus:
            scores |= metric(weights)
        return scores | {name: weighted_mean(values, weights) for name, values in means.items()}

    return statistics


def sentence_similarity(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    embed: Callable[[Sequence[str]], np.ndarray],
) -> np.ndarray:
    """Mean cosine of each of n candidates with its references: float64 [n].

    The sentence similarity of FENSE (Zhou et al. 2022, arXiv:2110.04684, section 3.1).

    Args:
      candidates, references: see ``caption_statistics``.
      embed: texts -> unit-norm embeddings [texts, d].
    """
    texts = list(dict.fromkeys([*candidates, *(text for own in references for text in own)]))
    row = {text: index for index, text in enumerate(texts)}
    embedded = np.asarray(embed(texts), np.float64)
    return np.array(
        [
            np.mean(embedded[[row[text] for text in own]] @ embedded[row[candidate]])
            for candidate, own in zip(candidates, references)
        ]
    )


def meteor_tables(place: pathlib.Path, texts: Iterable[str]) -> Tables:
    """The tables of METEOR for captions and their references; ``place`` as ``read`` takes it."""
    return read(place, [normalised(ptb_words(text)) for text in dict.fromkeys(texts)])


def vocabulary(texts: Sequence[str]) -> int:
    """How many different words the texts have together."""
    return len({word for text in texts for word in ptb_words(text)})
