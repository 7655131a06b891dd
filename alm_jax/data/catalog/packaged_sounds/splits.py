"""Which split a recording belongs to, and what is left out so that no test text or sound leaks.

Sounds: whole packages are test (TEST_PACKAGES); the others are divided between train and validation
by a hash of the source recording. Instruments: those rendered from a soundfont train, real ones
test. Speech: divided by the texts that are said, over all packages and languages at once: prompts,
concepts and levels that share a text, or its English translation, are one unit.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.decoding import Recording
from alm_jax.data.catalog.packaged_sounds.sources.grouping import text_groups
from alm_jax.data.hygiene import fingerprint

SPLITS = ('train', 'validation', 'test')

# The third is opensfx because, of the three that could be, it alone gives both a broad test and a
# broad training side. On tier base, by class: tested / trained / both / labelled training clips
#   opensfx   49 / 62 / 32 / 274   (and 10 of the tested are the unseen classes)
#   tuxpaint  65 / 43 / 29 / 271   (most animals would be heard in test only)
#   ufoai     50 / 54 / 25 / 105   (it holds most footsteps, doors, shots and splashes)
# Fixed before any training.
TEST_PACKAGES = ('gcompris', 'minetest', 'opensfx')
# Validation of instruments, where two soundfonts are read (tier full).
_VALIDATION_FONT, _TRAINING_FONT = 'timgm6mb', 'fluid'
# Its concepts in every language are test, so the language is unheard and its texts unread.
HELD_OUT_LANGUAGE = ('tuxpaint', 'nl')
_SOUND_VALIDATION = 0.15
_SPEECH_TEST, _SPEECH_VALIDATION = 0.1, 0.1
_TUXPAINT_TEST = 0.03  # beside the concepts of the held-out language, which are a tenth


def share(key: str) -> float:
    """A number in [0, 1) that depends on ``key`` only."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], 'big') / 2**64


def assign(clips: Sequence[Clip]) -> list[tuple[str, str]]:
    """(split, split unit) of each clip. The unit never straddles a split."""
    units = _speech_units(clips)
    held_out = {
        units[clip.group]
        for clip in clips
        if (clip.package, clip.language.split('-')[0]) == HELD_OUT_LANGUAGE
    }
    fonts = {clip.package for clip in clips if clip.kind == 'instrument'}
    assigned = []
    for clip in clips:
        if clip.kind == 'speech':
            unit = units[clip.group]
            assigned.append(('test' if unit in held_out else _speech_split(unit), unit))
        elif clip.kind == 'instrument':
            assigned.append((_instrument_split(clip.package, fonts), clip.group))
        elif clip.package in TEST_PACKAGES:
            assigned.append(('test', clip.group))
        else:
            validation = share('sound/' + clip.group) < _SOUND_VALIDATION
            assigned.append(('validation' if validation else 'train', clip.group))
    return assigned


def _speech_units(clips: Sequence[Clip]) -> dict[str, str]:
    texts = collections.defaultdict(list)
    for clip in clips:
        if clip.kind == 'speech':
            texts[clip.group] += [clip.transcript, clip.translation]
    return text_groups(texts)


def _speech_split(unit: str) -> str:
    test = _TUXPAINT_TEST if unit.startswith('tuxpaint/') else _SPEECH_TEST
    value = share('speech/' + unit)
    if value < test:
        return 'test'
    return 'validation' if value < test + _SPEECH_VALIDATION else 'train'


def _instrument_split(package: str, packages: set[str]) -> str:
    if package in TEST_PACKAGES:
        return 'test'
    if package == _VALIDATION_FONT and _TRAINING_FONT in packages:
        return 'validation'
    return 'train'


@dataclasses.dataclass(frozen=True)
class Placed:
    """A recording that is written: where, and with which captions."""

    recording: Recording
    split: str
    unit: str
    captions: tuple[str, ...]
    caption_own: str


def keep_unseen_apart(
    placed: Sequence[Placed],
    mentions_unseen: Callable[[str], bool],
    unseen: set[str],
    dropped: collections.Counter,
) -> list[Placed]:
    """Leaves out train and validation records that show or mention a class that is unseen."""
    kept = []
    for item in placed:
        clip = item.recording.clip
        texts = (*item.captions, *clip.tags, clip.label, clip.translation, clip.transcript)
        if item.split != 'test' and (clip.label in unseen or any(map(mentions_unseen, texts))):
            dropped[f'{clip.package}: shows or mentions an unseen class ({item.split})'] += 1
        else:
            kept.append(item)
    return kept


def without_duplicates(placed: Sequence[Placed], dropped: collections.Counter) -> list[Placed]:
    """One of each decoded recording; of near-duplicates across splits, the later split's.

    Copies within one split are kept unless equal to the bit: they leak nothing.
    """
    rank = {split: i for i, split in enumerate(SPLITS)}
    first: dict[str, Placed] = {}
    for item in sorted(placed, key=lambda item: -rank[item.split]):
        first.setdefault(item.recording.pcm_sha256, item)
    kept = [item for item in placed if first[item.recording.pcm_sha256] is item]
    for item in placed:
        if first[item.recording.pcm_sha256] is not item:
            dropped[f'{item.recording.clip.package}: same recording twice'] += 1
    for later in SPLITS[:0:-1]:
        kept = _without_copies_of(later, kept, dropped)
    return kept


def _without_copies_of(
    split: str, placed: Sequence[Placed], dropped: collections.Counter
) -> list[Placed]:
    """Leaves out what nearly equals a recording of ``split`` in the splits before it."""
    before = set(SPLITS[: SPLITS.index(split)])
    references = [item.recording.picture() for item in placed if item.split == split]
    queries = [item for item in placed if item.split in before]
    matches = fingerprint.near_duplicates([q.recording.picture() for q in queries], references)
    losers = {id(queries[match.query]) for match in matches}
    for item in placed:
        if id(item) in losers:
            reason = f'near-duplicate of a {split} recording ({item.split})'
            dropped[f'{item.recording.clip.package}: {reason}'] += 1
    return [item for item in placed if id(item) not in losers]


def leaks(placed: Sequence[Placed]) -> Mapping[str, list[str]]:
    """What a build must not have; each list is empty when all is well. Used by card and tests."""
    units, sounds, said = (collections.defaultdict(set) for _ in range(3))
    for item in placed:
        clip = item.recording.clip
        units[item.unit].add(item.split)
        sounds[item.recording.pcm_sha256].add(item.split)
        if clip.kind == 'speech':
            for text in {clip.transcript.casefold(), clip.translation.casefold()} - {''}:
                said[text].add(item.split)
    found = {'split units': units, 'recordings': sounds, 'spoken texts': said}
    return {
        name: sorted(key for key, splits in table.items() if len(splits) > 1)
        for name, table in found.items()
    }
