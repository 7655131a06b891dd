"""Instruments rendered from the real samples of General MIDI soundfonts.

Each instrument plays three single notes, low to high and soft to loud, and one short phrase (the
many synthesizers the phrase only); each percussion key one stroke and four. Sounds of one class
within a font may share samples, so the class is the split unit; fonts share none.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from absl import logging

from alm_jax.audio.decode import to_pcm16
from alm_jax.data.catalog.packaged_sounds import renderer
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import general_midi

_RATE = 32_000
_TAIL = 0.8  # seconds after the last note is released
_FADE = 0.1  # seconds at the end of the tail, for what still sounds
_SILENCE = 1e-4  # of full scale: what is below at the end is cut
_GAIN_DB = -6.0  # the loudest score of either font then peaks at 0.7
_DRUM_BANK, _DRUM_CHANNEL = 128, 9
_NOTES = ('C', 'C sharp', 'D', 'D sharp', 'E', 'F', 'F sharp', 'G', 'G sharp', 'A', 'A sharp', 'B')
_MIDDLE_C = 60
_SYNTHESIZER = 'synthesizer'
_DYNAMICS = (('soft', 50), ('medium loud', 85), ('loud', 120))  # MIDI velocities
_REGISTERS = (
    ('low', -12),
    ('mid-range', 0),
    ('high', 12),
)  # semitones from the centre
_PHRASES = (
    ('rising arpeggio', (0, 4, 7, 12)),
    ('falling scale', (7, 5, 4, 2, 0)),
    ('rising scale', (0, 2, 4, 5, 7)),
    ('repeated note', (0, 0, 0, 0)),
    ('falling arpeggio', (12, 7, 4, 0)),
)
_BEATS = (  # keys struck together, a step apart
    ('rock beat', ((36, 42), (42,), (38, 42), (42,), (36, 42), (36, 42), (38, 42), (46,))),
    ('disco beat', ((36, 42), (46,), (36, 38), (46,), (36, 42), (46,), (36, 38), (46,))),
    ('drum fill', ((38,), (38,), (50,), (50,), (47,), (47,), (41,), (36, 49))),
)


@dataclasses.dataclass(frozen=True)
class _Font:
    package: str  # of the clips
    member: str
    licence: str
    author: str


_FONTS = {
    'timgm6mb-soundfont': _Font(
        'timgm6mb', 'usr/share/sounds/sf2/TimGM6mb.sf2', 'GPL-2.0-only', 'Tim Brechbill'
    ),
    'fluid-soundfont-gm': _Font(
        'fluid', 'usr/share/sounds/sf2/FluidR3_GM.sf2', 'MIT', 'Frank Wen and others'
    ),
}
PACKAGES = tuple(_FONTS)


@dataclasses.dataclass(frozen=True)
class Score:
    """What is played.

    Attributes:
      bank: 0, or 128 for percussion.
      program: 0-127.
      steps: keys struck together at each step.
      velocity: 1-127.
      step: seconds from one step to the next; a key is held as long.
    """

    bank: int
    program: int
    steps: tuple[tuple[int, ...], ...]
    velocity: int
    step: float

    def __str__(self) -> str:
        keys = '-'.join('+'.join(map(str, keys)) for keys in self.steps)
        return f'{self.bank}:{self.program}/{keys}/velocity {self.velocity}'


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Notes and phrases of every font given; none, with a warning, when nothing can play them.

    Args:
      packages: name -> package.
      dropped: counts what is left out, by reason.
    """
    dropped = collections.Counter() if dropped is None else dropped
    scores = list(_scores())
    for name in _FONTS:
        if name not in packages:
            continue
        try:
            renderer.load(packages[name].path.parent)
        except renderer.RendererUnavailable as error:
            logging.warning('The instruments of %s are LEFT OUT. %s', name, error)
            dropped[f'{name}: no synthesiser on this machine'] += len(scores)
            continue
        for instrument, score, title, tags in scores:
            yield _clip(packages[name], _FONTS[name], instrument, score, title, tags)


def _clip(
    package: Package,
    font: _Font,
    instrument: general_midi.Instrument,
    score: Score,
    title: str,
    tags: tuple[str, ...],
) -> Clip:
    return Clip(
        package=font.package,
        member=f'{font.member}#{score}',
        read=functools.partial(_read, package, font.member, score),
        kind='instrument',
        group=f'{font.package}/{instrument.label}',
        title=f'{instrument.name}, {title}',
        label=instrument.label,
        tags=tags,
        licence=font.licence,
        author=font.author,
    )


def _scores() -> Iterator[tuple[general_midi.Instrument, Score, str, tuple[str, ...]]]:
    """(instrument, score, title without the instrument's name, tags)."""
    for instrument in general_midi.MELODIC:
        registers = () if instrument.label == _SYNTHESIZER else _REGISTERS
        for i, (register, interval) in enumerate(registers):
            # The rotations give each instrument other notes, dynamics and phrases.
            key = instrument.centre + interval + (instrument.number * 5 + i * 4) % 7 - 3
            dynamic, velocity = _DYNAMICS[(instrument.number + i) % len(_DYNAMICS)]
            note = _NOTES[key % 12]
            pitch = 'middle C' if key == _MIDDLE_C else f'{register} {note}'
            score = Score(0, instrument.number, ((key,),), velocity, 1.2)
            yield instrument, score, f'{pitch}, {dynamic}', (register, note, dynamic)
        phrase, intervals = _PHRASES[instrument.number % len(_PHRASES)]
        steps = tuple((instrument.centre + interval,) for interval in intervals)
        yield instrument, Score(0, instrument.number, steps, 100, 0.35), phrase, (phrase,)
    for i, drum in enumerate(general_midi.PERCUSSION):
        dynamic, velocity = _DYNAMICS[i % len(_DYNAMICS)]
        hit = Score(_DRUM_BANK, 0, ((drum.number,),), velocity, 0.5)
        yield drum, hit, f'one stroke, {dynamic}', ('one stroke', dynamic)
        hits = Score(_DRUM_BANK, 0, ((drum.number,),) * 4, 100, 0.3)
        yield drum, hits, 'four strokes', ('four strokes',)
    kit = general_midi.Instrument(0, 'Drum Kit', 'drum kit', 0)
    for beat, steps in _BEATS:
        yield kit, Score(_DRUM_BANK, 0, steps, 100, 0.2), beat, (beat,)


def _read(package: Package, member: str, score: Score) -> tuple[np.ndarray, int]:
    font = _SoundFont(package.path, member, package)
    return to_pcm16(render(*_synthesiser(font), score)), _RATE


@dataclasses.dataclass(frozen=True)
class _SoundFont:
    """A key for the cache below: the package does not count."""

    path: pathlib.Path
    member: str
    package: Package = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=1)  # the larger font takes 0.5 GB
def _synthesiser(font: _SoundFont) -> tuple:
    """(Synth, soundfont id): loading takes 0.03 to 0.7 s, a note 1 ms."""
    synth = renderer.load(font.path.parent).Synth(gain=_GAIN_DB, samplerate=_RATE)
    return synth, synth.sfload(font.package.read(font.member))


def render(synth, font_id: int, score: Score) -> np.ndarray:
    """Plays ``score``: float32 [n] mono in [-1, 1], without the silence at its end.

    The result does not depend on what the synthesiser played before: sounds_off fades within
    10 ms, and those are thrown away.
    """
    drums = score.bank == _DRUM_BANK
    channel = _DRUM_CHANNEL if drums else 0
    synth.sounds_off()
    synth.generate(_RATE // 10)
    synth.program_select(channel, font_id, score.bank, score.program, drums)
    parts = []
    for keys in score.steps:
        for key in keys:
            synth.noteon(channel, key, score.velocity)
        parts.append(_play(synth, score.step))
        for key in keys:
            synth.noteoff(channel, key)
    parts.append(_play(synth, _TAIL))
    x = np.concatenate(parts)
    fade = round(_FADE * _RATE)
    x[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    x = x[: np.flatnonzero(np.abs(x) > _SILENCE).max(initial=0) + 1]
    return x / max(1.0, float(np.abs(x).max()))


def _play(synth, seconds: float) -> np.ndarray:
    stereo = np.frombuffer(synth.generate(round(seconds * _RATE)), np.float32)
    return stereo.reshape(-1, 2).mean(axis=1)
