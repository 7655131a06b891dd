"""Answers to questions: equal after normalisation, or one of the choices that a question lists."""

import re
from collections.abc import Sequence

from alm_jax.evals.metrics.word_errors import plain

_ARTICLES = ('a', 'an', 'the')
_MARK = re.compile(r'(?:^|(?<=\s))\(?([A-Ha-h]|[1-8])[).:]\s+')
# The answer's letter stands alone, or first with a mark behind it: "A dog barks" is no answer A.
_LETTER = (
    re.compile(r'^\W*([A-Ha-h1-8])\s*(?:[).:,].*)?$', re.DOTALL),
    re.compile(r'\b(?i:answer|option|choice)(?:\s+is|:)*\s*\(?([A-H1-8])\b(?!\s+[a-z])'),
)


def normal(text: str) -> str:
    """Lower case without punctuation and articles, as SQuAD compares answers."""
    return ' '.join(word for word in plain(text).split() if word not in _ARTICLES)


def is_answer(response: str, answers: Sequence[str]) -> bool:
    """Whether a response equals one of the answers after normalisation."""
    return normal(response) in map(normal, answers)


def choices_of(question: str) -> tuple[str, ...]:
    """The choices that a question lists, '(A) dog (B) cat' or a line each; () when it has none."""
    marks = list(_MARK.finditer(question))
    first = next((i for i, mark in enumerate(marks) if mark[1] in 'Aa1'), len(marks))
    run: list[re.Match] = []
    for mark in marks[first:]:
        if run and ord(mark[1]) != ord(run[-1][1]) + 1:
            break
        run.append(mark)
    if len(run) < 2:
        return ()
    ends = [*(mark.start() for mark in run[1:]), len(question)]
    texts = [question[mark.end() : end].strip(' \n\t,;') for mark, end in zip(run, ends)]
    texts[-1] = texts[-1].split('\n')[0].strip()
    return tuple(texts)


def chosen(response: str, choices: Sequence[str]) -> int | None:
    """Which choice a response takes, None where it takes none or several.

    A choice in its own words decides; then a letter (or number) that stands alone, comes first with
    a mark behind it, or follows "answer is". Otherwise the response must name exactly one choice.
    """
    said, named = f' {normal(response)} ', [normal(choice) for choice in choices]
    if said.strip() in named:
        return named.index(said.strip())
    for pattern in _LETTER:
        if found := pattern.search(response.strip()):
            place = _place(found[1])
            return place if place < len(choices) else None
    found = [i for i, choice in enumerate(named) if choice and f' {choice} ' in said]
    longest = [i for i in found if not any(_inside(named[i], named[j]) for j in found if j != i)]
    return longest[0] if len(longest) == 1 else None


def mmau_match(response: str, answer: str, choices: Sequence[str]) -> bool:
    """MMAU's official string match (Sakshi et al. 2024, evaluation.py).

    The response has every word of the answer, and none that only other choices have. So it fails an
    answer that restates the options or reasons about them.
    """
    said, right = _word_set(response), _word_set(answer)
    wrong = set().union(*map(_word_set, choices)) - right
    return bool(said) and right <= said and not said & wrong


def _word_set(text: str) -> set[str]:
    return set(re.findall(r'\b\w+\b', text.lower()))


def _place(mark: str) -> int:
    return int(mark) - 1 if mark.isdigit() else ord(mark.upper()) - ord('A')


def _inside(part: str, whole: str) -> bool:
    return part != whole and f' {part} ' in f' {whole} '
