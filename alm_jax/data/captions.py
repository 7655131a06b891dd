"""The caption of a record: one of its own, or a sentence made from its tags.

The sentence does what LAION's keyword-to-caption does (Wu et al., arXiv:2211.06687, section 2.2),
by templates instead of T5. Which of the two a caption is goes with it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.data import english, lexicon, temporal

MADE_FROM = ('caption', 'keywords', 'transcript')
LONGEST = 1 << 16  # characters: what an hour of speech may be transcribed with
_MAX_KEYWORDS = 5
# Control characters, and invisible ones that only split words; every kind of space is one space.
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029]')
_INVISIBLE = re.compile(r'[\u00ad\u200b\u2060\ufeff]')
# {} takes phrases with their articles; {plain} tags as they are, where anything may be a tag.
_SOUND = (
    'The sound of {}.',
    'A recording of {}.',
    'One can hear {}.',
    '{} can be heard.',
    'Audio with the sound of {}.',
    '{}.',
)
_LABELLED = (
    'The sound of {label}: {plain}.',
    'A recording of {label}, tagged {plain}.',
    '{label} can be heard: {plain}.',
)
_CLAUSES = ('{}.', 'Sounds: {plain}.')  # where a tag is a sentence: 'a dog barks'
_MUSIC = ('Music: {plain}.', 'A piece of music: {plain}.', 'Music tagged {plain}.')
_SPEECH = ('Speech: {plain}.', 'A voice: {plain}.', 'A recording of speech, tagged {plain}.')
_SAID = (
    'A person says: "{}"',
    'A voice says: "{}"',
    'Someone says the words: "{}"',
    'Speech with the words: "{}"',
)


class TextError(ConfigError):
    """A record whose text cannot be used; the message says what it lacks."""


def refuse_long(record: Mapping[str, Any]) -> None:
    """Raises TextError for a text of more than LONGEST characters: a mistake, not a caption.

    Whatever looks at texts may take long over such a one.
    """
    parts = [part for name in ('turns', 'times') for part in record[name]]
    texts = [text for part in parts for text in part.values() if isinstance(text, str)]
    texts += [record['label'], record['transcript'], *record['captions'], *record['tags']]
    if (longest := max(map(len, texts))) > LONGEST:
        raise TextError(f'the record has a text of {longest} characters; at most {LONGEST}.')


class Caption(NamedTuple):
    """A text and what it is made from, one of MADE_FROM."""

    text: str
    made_from: str


def choose(
    record: Mapping[str, Any],
    rng: np.random.Generator,
    keyword_share: float = 0.0,
    is_whole: bool = True,
) -> Caption:
    """One caption for a record, drawn by ``rng``.

    A record without captions gets one made from its tags, label or what its times name; one
    without these, too, from its transcript.

    Args:
      record: see ``alm_jax.data.record``.
      rng: makes every choice.
      keyword_share: probability of a caption made from keywords where captions exist.
      is_whole: whether all of the audio is used; of a part the transcript is not true.

    Raises:
      TextError: nothing to make a caption from.
    """
    own = [text for text in map(clean, record['captions']) if text]
    if not own or (keyword_share and rng.random() < keyword_share):
        label, tags = keywords(record)
        if label or tags:
            return Caption(from_keywords(label, tags, record['kind'], rng), 'keywords')
    if own:
        return Caption(own[int(rng.integers(len(own)))], 'caption')
    said = clean(record['transcript'])
    if said and is_whole:
        return Caption(_SAID[int(rng.integers(len(_SAID)))].format(said), 'transcript')
    if said:
        raise TextError('the record has a transcript alone, and is longer than the window.')
    raise TextError('the record has no caption, no tags and no label.')


def clean(text: str) -> str:
    """Control characters removed, each run of white space one space, none at the ends."""
    return ' '.join(_INVISIBLE.sub('', _CONTROL.sub(' ', text)).split())


def keywords(record: Mapping[str, Any]) -> tuple[str, list[str]]:
    """(label or '', tags without it) in plain words, each said once.

    Of a record with neither, the tags are what its times name.
    """
    label = plain_words(record['label'])
    tags = [*map(plain_words, record['tags'])]
    if not label and not any(tags):
        tags = [plain_words(time['text']) for time in record['times']]
    said = {english.normalised(label): label}
    for tag in tags:
        said.setdefault(english.normalised(tag), tag)
    return label, [tag for plain, tag in said.items() if plain and tag != label]


def plain_words(tag: str) -> str:
    """'Male_speech, man speaking' -> 'male speech': what one writes inside a sentence."""
    text = clean(re.sub(r'\(.*?\)', ' ', tag).split(',')[0].replace('_', ' ').replace('/', ' '))
    text = text.strip('#.;: ')
    return text if len(text.split(' ')[0]) == 1 else english.clause(text)  # A is a note


def from_keywords(label: str, tags: Sequence[str], kind: str, rng: np.random.Generator) -> str:
    """A sentence over a label and tags, of which at least one is given; at most five tags."""
    if len(tags) > _MAX_KEYWORDS:
        chosen = rng.choice(len(tags), _MAX_KEYWORDS, replace=False, shuffle=False)
        tags = [tags[i] for i in sorted(chosen.tolist())]
    everything = [label, *tags] if label else tags
    if kind in ('music', 'speech'):
        templates = _MUSIC if kind == 'music' else _SPEECH
        listed = ', '.join(everything)
    elif label and tags:
        templates, listed = _LABELLED, ', '.join(tags)
    else:
        is_clause = any(map(temporal.is_clause, everything))
        templates, listed = _CLAUSES if is_clause else _SOUND, ', '.join(everything)
    template = templates[int(rng.integers(len(templates)))]
    phrases = english.listed([phrase(word) for word in everything])
    # The values may hold braces, so they are put in all at once.
    return english.sentence(
        template.format(phrases, label=phrase(label) if label else '', plain=listed)
    )


def phrase(words: str) -> str:
    """With an article where a countable noun asks for one: 'dog barking', but 'heavy rain'."""
    parts = words.lower().split()
    heads = parts[:-1] if len(parts) > 1 and parts[-1].endswith('ing') else parts
    is_countable = heads[-1] in lexicon.COUNTABLE or ' '.join(heads[-2:]) in lexicon.COUNTABLE
    is_countable = is_countable or (len(parts) > 1 and parts[-1] in lexicon.VERBS)  # 'dog bark'
    if parts[0] in lexicon.DETERMINERS or not is_countable or temporal.is_clause(words):
        return words
    return english.with_article(words)
