"""What is heard in a sample of the records, and what is wrong with it."""

import collections
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from alm_jax.audio.decode import FULL_SCALE, AudioError
from alm_jax.data.hygiene import copies, fingerprint, pictures, texts
from alm_jax.data.hygiene.workers import in_order
from alm_jax.data.inspection.facts import QUIET_PEAK, SILENT, Suspicion

SAMPLE = 2000  # records that are read, of a larger dataset
_RECORDS_A_TASK = 16
_ROWS_KEPT = 12
_FRAME = 0.02  # seconds
_SILENCE = -60.0  # dB below full scale
_CLIPPED = 0.001  # of the samples, at full scale
_MAJORITY = 0.95  # of the sample, that makes another rate suspicious
_COMMON_CAPTION = 0.02  # of the sample
_SECONDS = 120.0  # of a long recording that are looked at


@dataclasses.dataclass(frozen=True)
class Heard:
    """One record that was read.

    Attributes:
      part, number: where it is.
      rate: Hz, of its audio; 0 when it cannot be decoded.
      peak: dB below full scale.
      clipped: share of the samples at full scale.
      silence: share of the frames below -60 dB.
      captions: its texts.
      wrong: what the file says otherwise than the index, or why it cannot be decoded.
      levels: fingerprint picture.
    """

    part: int
    number: int
    rate: int = 0
    peak: float = -np.inf
    clipped: float = 0.0
    silence: float = 1.0
    captions: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    levels: np.ndarray | None = None


def listen(parts: Sequence, chosen: Sequence[tuple[int, int]], workers: int) -> list[Heard]:
    """Reads the chosen (part, number) of each record."""
    tasks = [chosen[i : i + _RECORDS_A_TASK] for i in range(0, len(chosen), _RECORDS_A_TASK)]
    heard: list[Heard] = []
    with tqdm(total=len(chosen), desc='Listening', unit='clip', disable=None) as bar:
        for task, found in in_order(functools.partial(_listen, parts), tasks, workers):
            heard += found
            bar.update(len(task))
    return heard


def choose(parts: Sequence, count: int, seed: int) -> list[tuple[int, int]]:
    """(part, number) of ``count`` records of all parts together, drawn without repetition."""
    sizes = np.cumsum([0, *map(len, parts)])
    rng = np.random.default_rng(seed)
    total = int(sizes[-1])
    # Of 10**8 records a permutation would take a gigabyte.
    drawn: list[int] = [] if 4 * count < total else rng.permutation(total)[:count].tolist()
    while len(drawn) < min(count, total):
        more = rng.integers(total, size=count - len(drawn)).tolist()
        drawn = list(dict.fromkeys([*drawn, *more]))
    part = np.searchsorted(sizes, drawn, side='right') - 1
    return [(int(p), int(d - sizes[p])) for p, d in zip(part, drawn)]


def suspicions(heard: Sequence[Heard], workers: int) -> dict[str, Suspicion]:
    """Reason -> records of the sample that have it."""
    found: dict[str, list[Heard]] = collections.defaultdict(list)
    readable = [one for one in heard if one.rate]
    rates = collections.Counter(one.rate for one in readable)
    usual, share = (rates.most_common(1) or [(0, 0)])[0]
    is_usual = share >= _MAJORITY * len(readable)
    for one in heard:
        for reason in one.wrong:
            found[reason].append(one)
    for one in readable:
        if one.silence > SILENT:
            found['silent throughout'].append(one)
        elif one.peak < QUIET_PEAK:
            found[f'peak below {QUIET_PEAK:g} dB'].append(one)
        if one.clipped > _CLIPPED:
            found[f'clipped: more than {_CLIPPED:.1%} of the samples at full scale'].append(one)
        if is_usual and one.rate != usual:
            found[f'not at {usual} Hz, as nearly all others are'].append(one)
    for one in heard:
        if any(not text.strip() for text in one.captions):
            found['an empty caption'].append(one)
    found |= _common_captions(heard)
    suspicious = {
        reason: Suspicion(len(heard), len(ones), [(o.part, o.number) for o in ones[:_ROWS_KEPT]])
        for reason, ones in found.items()
    }
    matches = copies.find(pictures.Held([one.levels for one in readable]), workers=workers)
    suspicious['sounds as another record of the sample'] = Suspicion(
        len(heard),
        len({match.reference for match in matches}),
        # Each beside the one that it copies.
        [
            (readable[i].part, readable[i].number)
            for match in matches[: _ROWS_KEPT // 2]
            for i in (match.query, match.reference)
        ],
    )
    return suspicious


def _common_captions(heard: Sequence[Heard]) -> dict[str, list[Heard]]:
    by_text = collections.defaultdict(list)
    for one in heard:
        for text in {' '.join(texts.words(text)) for text in one.captions} - {''}:
            by_text[text].append(one)
    least = max(5, _COMMON_CAPTION * len(heard))
    return {
        f'caption shared by many: "{text[:80]}"': ones
        for text, ones in sorted(by_text.items(), key=lambda item: -len(item[1]))[:5]
        if len(ones) >= least
    }


def _listen(parts: Sequence, chosen: Sequence[tuple[int, int]]) -> list[Heard]:
    return [_hear(parts[part], part, number) for part, number in chosen]


def _hear(source, part: int, number: int) -> Heard:
    try:
        stored = source.read(number)
        captions = tuple(stored['captions'])
        pcm, rate = pictures.beginning(stored, _SECONDS)
    except AudioError as error:
        return Heard(part, number, wrong=(f'cannot be decoded: {_short(error)}',))
    if not len(pcm):
        return Heard(part, number, captions=captions, wrong=('no samples',))
    loud = np.abs(pcm.astype(np.float32)) / FULL_SCALE
    return Heard(
        part,
        number,
        rate=rate,
        peak=_decibels(float(loud.max())),
        clipped=float(np.mean(loud >= 32767 / FULL_SCALE)),
        silence=_silence(loud, rate),
        captions=captions,
        wrong=_disagreement(source, number, rate, len(pcm)),
        levels=fingerprint.picture(pcm, rate),
    )


def _disagreement(source, number: int, rate: int, samples: int) -> tuple[str, ...]:
    """What the file says otherwise than the index."""
    row = source.row(number)
    if source.index.value('rate', row) != rate:
        return ('the rate of the file is not that of the index',)
    expected = source.index.value('num_samples', row)
    if min(expected, int(_SECONDS * rate)) != samples:
        return ('the length of the file is not that of the index',)
    return ()


def _silence(loud: np.ndarray, rate: int) -> float:
    frame = max(1, int(_FRAME * rate))
    count = max(1, len(loud) // frame)
    frames = loud[: count * frame].reshape(count, -1) if len(loud) >= frame else loud[None]
    return float(np.mean(20 * np.log10(frames.max(axis=1).clip(1e-9)) < _SILENCE))


def _decibels(value: float) -> float:
    return 20 * float(np.log10(max(value, 1e-9)))


def _short(error: AudioError) -> str:
    """The kind of error, without the name of the file, so that equal ones are counted as one."""
    kinds = ('truncated', 'empty', 'cannot be read', 'no samples', 'NaN', 'sampling rate')
    return next((kind for kind in kinds if kind in str(error)), 'not readable audio')
