"""Word and character error rates of transcripts, by jiwer."""

import re
import unicodedata
from collections.abc import Callable, Sequence

import jiwer
import numpy as np


def word_errors(
    candidates: Sequence[str], references: Sequence[str]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """``wer`` and ``cer`` as a function of weights [..., n], see ``bootstrap``.

    Substitutions, insertions and deletions of the corpus over the words, or characters, of its
    references; above 1 where much is inserted. Texts are compared as ``plain`` leaves them.

    Args:
      candidates: what the model wrote for each of n clips.
      references: what is said in them, not empty.
    """
    pairs = [(plain(r), plain(c)) for c, r in zip(candidates, references)]
    words = np.array([_errors(jiwer.process_words(*pair)) for pair in pairs])
    characters = np.array([_errors(jiwer.process_characters(*pair)) for pair in pairs])

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {'wer': _rate(weights @ words), 'cer': _rate(weights @ characters)}

    return statistics


def plain(text: str) -> str:
    """Lower case without what is bracketed, marks and punctuation, single spaces.

    Whisper's basic normaliser (Radford et al. 2022, appendix C, for languages other than English).
    """
    text = re.sub(r'[<\[][^>\]]*[>\]]|\([^)]+?\)', '', text.lower())
    marked = unicodedata.normalize('NFKC', text)
    kept = (' ' if unicodedata.category(c)[0] in 'MSP' else c for c in marked)
    return ' '.join(''.join(kept).lower().split())


def _errors(found) -> tuple[int, int]:
    """Errors, and the length of the reference."""
    wrong = found.substitutions + found.deletions
    return wrong + found.insertions, wrong + found.hits


def _rate(counts: np.ndarray) -> np.ndarray:
    return counts[..., 0] / counts[..., 1]
