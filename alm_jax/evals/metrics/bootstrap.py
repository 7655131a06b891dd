"""Bootstrap intervals that resample source recordings.

Clips cut from one recording are not independent, so a resample draws whole recordings with
replacement (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their Application,
section 3.8) and every clip of a drawn recording counts as often as its recording was drawn. A
statistic therefore takes integer weights, one a clip; weight 2 means the clip is there twice.
"""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000


def recording_weights(
    recording_ids: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """How often each clip occurs in each resample: float64 [resamples, n].

    As many recordings are drawn, with replacement, as there are distinct ids.
    """
    recordings, recording_of = np.unique(np.asarray(recording_ids), return_inverse=True)
    count = len(recordings)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    return drawn[:, recording_of].astype(np.float64)


def scored(
    statistics: Callable[[np.ndarray], dict[str, np.ndarray]], recording_ids: Sequence[str]
) -> dict[str, float | list[float] | None]:
    """``{name: value, name_ci95: [low, high]}`` for every entry of ``statistics``.

    Args:
      statistics: maps weights [..., n] to values [...] by name.
      recording_ids: the source recording of each of the n clips.
    """
    point = statistics(np.ones(len(recording_ids)))
    spread = statistics(recording_weights(recording_ids))
    alone = len(set(recording_ids)) < 2
    result = {}
    for name, value in point.items():
        result[name] = float(value)
        result[f'{name}_ci95'] = None if alone else interval(spread[name], value)
    return result


def paired(
    left: Callable[[np.ndarray], dict[str, np.ndarray]],
    right: Callable[[np.ndarray], dict[str, np.ndarray]],
    recording_ids: Sequence[str],
) -> dict[str, float | list[float] | None]:
    """``scored`` of left - right, two systems on the same clips, for the entries that both have.

    A resample draws the same recordings for both, so what is easy or hard about a clip cancels
    (Koehn 2004, https://aclanthology.org/W04-3250).
    """

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        ours, theirs = left(weights), right(weights)
        return {name: ours[name] - theirs[name] for name in ours if name in theirs}

    return scored(difference, recording_ids)


def interval(values_r: np.ndarray, value: float) -> list[float]:
    """The 95 % percentile interval of a statistic's values over resamples, centred on ``value``.

    A resample has fewer distinct clips, and classes without any, so means over classes and average
    precision are biased upwards in it: the mean of the resamples is moved to the value itself, and
    no end goes beyond what a resample gave. Resamples where it is undefined (NaN) are left out.
    """
    values = np.asarray(values_r, np.float64)
    ends = np.nanquantile(values, [0.025, 0.975]) - np.nanmean(values) + value
    low, high = np.clip(ends, min(np.nanmin(values), value), max(np.nanmax(values), value))
    return [float(low), float(high)]


def weighted_mean(values_n: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of ``values_n`` under weights [..., n]; NaN where the weights are all zero."""
    total = weights.sum(-1)
    with np.errstate(invalid='ignore'):
        return (weights @ np.asarray(values_n, np.float64)) / total


def weighted_median(values_n: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``np.median`` of the values repeated as their integer weights [..., n] say."""
    order = np.argsort(values_n, kind='stable')
    values = np.asarray(values_n, np.float64)[order]
    below = np.cumsum(weights[..., order], axis=-1)
    half = below[..., -1:] / 2
    lower = np.argmax(below >= half, axis=-1)
    upper = np.argmax(below > half, axis=-1)
    return (values[lower] + values[upper]) / 2
