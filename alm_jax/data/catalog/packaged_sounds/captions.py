"""English captions of a clip, from the source's own text.

All packages share one set of templates, drawn alike, so that a template tells neither package nor
split. A caption says nothing that the source does not say: a sound's from its title (as a noun
phrase, written beside the label rules of each source) and from its class, an instrument's from name
and note, speech from transcript, or from language and English translation.
"""

import re

import numpy as np

from alm_jax import config as config_lib
from alm_jax.data.catalog.packaged_sounds import classes
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.text.languages import language_name

_SOUND = (
    'The sound of {}.',
    'A recording of {}.',
    'This is the sound of {}.',
    'One can hear {}.',
    'We hear {}.',
    '{} can be heard.',
    'A short recording of {}.',
    '{}.',
)
_INSTRUMENT = (
    '{name} {plays} {what}.',
    'Someone plays {what} on {name}.',
    '{what} on {name}.',
    '{what}, played on {name}.',
    'A recording of {name} playing {what}.',
    'One can hear {name} playing {what}.',
)
_INSTRUMENT_ALONE = (
    '{name} {plays}.',
    'Someone plays {name}.',
    'The sound of {name}.',
    'Music played on {name}.',
    'A recording of {name}.',
    'One can hear {name}.',
)
_SPEECH = (
    "A person says: '{}'",
    "A voice says: '{}'",
    "Someone says: '{}'",
    "The speaker says: '{}'",
    "A recording of a voice that says: '{}'",
    "We hear the words: '{}'",
)
_FOREIGN = (
    "A person says in {language}: '{text}'",
    "A speaker says in {language} the words for: '{text}'",
    "A voice speaks {language}; it means: '{text}'",
    "Someone says in {language} what means: '{text}'",
    "Speech in {language}, in English: '{text}'",
)
_FOREIGN_ALONE = (
    'A person speaks {language}.',
    'A voice says something in {language}.',
    'Someone is speaking {language}.',
    'A recording of speech in {language}.',
    'One can hear a voice that speaks {language}.',
)
_DYNAMICS = ('soft', 'medium loud', 'loud')
_REGISTERS = ('low', 'mid-range', 'high')


def captions(clip: Clip, rng: np.random.Generator) -> tuple[str, ...]:
    """Two to five different English sentences; the same for the same clip and generator state.

    Raises ConfigError for speech in a language that has no name here, and for an unknown label.
    """
    drawn = {'sound': _of_sound, 'instrument': _of_instrument, 'speech': _of_speech}[clip.kind]
    sentences = (*drawn(clip, rng), *clip.sentences)
    return tuple(dict.fromkeys(map(_capitalised, sentences)))


def own_language(clip: Clip) -> str:
    """What is said, in its own language; '' for English and for what is not speech."""
    return '' if _is_english(clip.language) else clip.transcript


def noun_phrase(title: str) -> str:
    """A title as words: 'footsteps/gravel3' -> 'footsteps gravel', 'CarEngine' -> 'car engine'."""
    words = re.sub(r'([a-z])([A-Z])', r'\1 \2', title)
    words = re.sub(r'\.\w{3,4}$|[\d()"]', ' ', words)
    return ' '.join(re.split(r'[\W_]+', words)).strip().lower()


def _of_sound(clip: Clip, rng: np.random.Generator) -> list[str]:
    phrase = clip.phrase or noun_phrase(clip.title)
    of_title = [template.format(phrase) for template in _draw(_SOUND, rng)]
    return of_title + _of_class(clip, rng)


def _of_class(clip: Clip, rng: np.random.Generator) -> list[str]:
    if not clip.label:
        return []
    if clip.label not in classes.CLASSES:
        raise config_lib.ConfigError(
            f'{clip.package}: {clip.member} has the label {clip.label!r}, which is not a class. '
            + config_lib.did_you_mean(clip.label, list(classes.CLASSES))
        )
    return [f'{phrase}.' for phrase in _draw(classes.CLASSES[clip.label].phrases, rng)]


def _of_instrument(clip: Clip, rng: np.random.Generator) -> list[str]:
    instrument = clip.label or noun_phrase(clip.title)
    words = {
        'name': classes.named(instrument),
        'plays': 'play' if classes.plural(instrument) else 'plays',
        'what': _what_is_played(clip.tags),
    }
    templates = _INSTRUMENT if words['what'] else _INSTRUMENT_ALONE
    return [template.format(**words) for template in _draw(templates, rng)]


def _what_is_played(tags: tuple[str, ...]) -> str:
    """('low', 'C sharp', 'soft') -> 'a soft low C sharp'; () -> ''."""
    if not tags:
        return ''
    dynamic = next((tag for tag in tags if tag in _DYNAMICS), '')
    rest = [tag for tag in tags if tag != dynamic]
    if rest[:1] == ['one stroke']:
        rest = ['single stroke']
    what = ' '.join([dynamic, *rest]).strip()
    counted = rest[0].split(' ')[0] in ('two', 'three', 'four')
    return what if counted else f'a {what}'


def _of_speech(clip: Clip, rng: np.random.Generator) -> list[str]:
    if _is_english(clip.language):
        said = clip.transcript or clip.translation
        return [template.format(said) for template in _draw(_SPEECH, rng)]
    words = {'language': language_name(clip.language), 'text': clip.translation}
    templates = _FOREIGN if clip.translation else _FOREIGN_ALONE
    return [template.format(**words) for template in _draw(templates, rng)]


def _is_english(language: str) -> bool:
    return language == '' or language.lower().startswith('en')


def _draw(items: tuple[str, ...], rng: np.random.Generator, count: int = 2) -> list[str]:
    """``count`` different items."""
    return [items[i] for i in rng.permutation(len(items))[:count]]


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
