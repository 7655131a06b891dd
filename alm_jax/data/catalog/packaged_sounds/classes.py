"""The taxonomy: what can be heard in the packages, in everyday words.

A label is the plain name that zero-shot prompts use. The sounds are listed in classes.txt; an
unseen class has no training recording, and no training caption of any kind may hold its label, its
synonyms or its AudioSet parent. ``mentions_unseen`` is that rule, which the builder applies.
"""

import dataclasses
import functools
import importlib.resources
import re

from alm_jax.data.catalog.packaged_sounds.sources import general_midi


@dataclasses.dataclass(frozen=True)
class ClassInfo:
    """One class.

    Attributes:
      phrases: what is heard, lower case, without a full stop ('a dog barks').
      audioset: AudioSet display names of the same sound, nearest first; () where it has none.
      audioset_parent: display name of the parent of the first in the AudioSet ontology
        (https://github.com/audioset/ontology), or one of them where it has several.
      synonyms: other words for the sound or for what makes it.
      unseen: whether the class is kept out of the training captions.
    """

    phrases: tuple[str, ...]
    audioset: tuple[str, ...]
    audioset_parent: str
    synonyms: tuple[str, ...] = ()
    unseen: bool = False


# Display names that differ from the label; other instruments have none of their own.
_AUDIOSET_INSTRUMENTS = {
    'bell': 'Bell',
    'double bass': 'Double bass',
    'drum kit': 'Drum kit',
    'electric piano': 'Electric piano',
    'maracas': 'Maraca',
    'marimba': 'Marimba, xylophone',
    'steel drum': 'Steelpan',
    'violin': 'Violin, fiddle',
    'xylophone': 'Marimba, xylophone',
} | {
    label: label.capitalize()
    for label in (
        'accordion bagpipes banjo bass_drum bass_guitar cello choir clarinet cowbell cymbal '
        'didgeridoo drum electric_guitar flute french_horn glockenspiel guitar harmonica harp '
        'harpsichord hi-hat orchestra organ piano saxophone sitar snare_drum synthesizer tabla '
        'tambourine timpani trombone trumpet tubular_bells vibraphone wood_block'
    )
    .replace('_', ' ')
    .split(' ')
}
_PLURAL = {'bagpipes', 'castanets', 'claves', 'maracas', 'timpani', 'tubular bells'}


def named(instrument: str) -> str:
    """The instrument with its article: 'an oboe', 'maracas'."""
    if instrument in _PLURAL:
        return instrument
    return ('an ' if instrument[0] in 'aeiou' else 'a ') + instrument


def plural(instrument: str) -> bool:
    """Whether the instrument's name is a plural."""
    return instrument in _PLURAL


def _sounds() -> dict[str, ClassInfo]:
    """Reads classes.txt."""
    text = importlib.resources.files(__package__).joinpath('classes.txt').read_text('utf-8')
    table = {}
    for line in text.splitlines():
        if line.startswith('#'):
            continue
        label, seen, phrases, audioset, parent, *rest = line.split(' | ')
        table[label] = ClassInfo(
            phrases=tuple(phrases.split('; ')),
            audioset=tuple(audioset.split('; ')),
            audioset_parent=parent,
            synonyms=tuple(rest[0].split('; ')) if rest else (),
            unseen=seen == 'unseen',
        )
    return table


def _instruments() -> dict[str, ClassInfo]:
    """The instruments of the soundfonts, and those that only real recordings have."""
    labels = {instrument.label for instrument in (*general_midi.MELODIC, *general_midi.PERCUSSION)}
    table = {}
    for label in sorted(labels | {'drum kit', 'tabla'}):
        verbs = ('play', 'are playing') if plural(label) else ('plays', 'is playing')
        name = _AUDIOSET_INSTRUMENTS.get(label)
        table[label] = ClassInfo(
            phrases=(*(f'{named(label)} {verb}' for verb in verbs), f'the sound of {named(label)}'),
            audioset=(name,) if name else (),
            audioset_parent='Musical instrument',
        )
    return table


SOUNDS = _sounds()
INSTRUMENTS = _instruments()
# A label may name both ('bell'): the sound then says more.
CLASSES = INSTRUMENTS | SOUNDS


def mentions_unseen(text: str) -> bool:
    """Whether ``text`` holds the label, a synonym or the AudioSet parent of an unseen class.

    Words count in any case and as plural, past or -ing form; terms of several words must stand
    together, with spaces or hyphens between.
    """
    return bool(_unseen_terms().search(text))


def unseen_words() -> dict[str, tuple[str, ...]]:
    """Unseen label -> every term that training captions may not hold."""
    return {
        label: (label, *info.synonyms, *_parts(info.audioset_parent))
        for label, info in CLASSES.items()
        if info.unseen
    }


@functools.cache
def _unseen_terms() -> re.Pattern:
    terms = {term.lower() for words in unseen_words().values() for term in words}
    forms = sorted(r'[\s-]+'.join(map(_inflected, term.split())) for term in terms)
    return re.compile(rf'\b(?:{"|".join(forms)})\b', re.IGNORECASE)


def _parts(display_name: str) -> tuple[str, ...]:
    """'Boat, Water vehicle' -> ('Boat', 'Water vehicle'); a bracketed remark is dropped."""
    return tuple(part.strip() for part in re.sub(r'\(.*?\)', '', display_name).split(','))


def _inflected(word: str) -> str:
    """A pattern for the word and its regular forms: applaud, applauds, applauded, applauding."""
    if word.endswith('s') and not word.endswith('ss'):
        word = word[:-1]
    if word.endswith('e'):
        return re.escape(word[:-1]) + '(?:e|es|ed|ing)'
    if word.endswith('y'):
        return re.escape(word[:-1]) + '(?:y|ys|ies)'
    return re.escape(word) + f'(?:s|es|{word[-1]}?(?:ed|ing))?'
