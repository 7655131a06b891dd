"""Another clip's audio for every clip: whether a model listens shows in what it loses by that."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

_BLOCK = 2000  # clips of neighbouring length that are matched at once
_NEVER = 1e6


def partners(
    seconds: Sequence[float], windows: Sequence[int], labels: Sequence[str], sources: Sequence[str]
) -> np.ndarray:
    """Which clip's audio each of n clips gets: int64 [n], -1 where none may be taken.

    A partner has another label and source and as many windows, so that neither what is heard nor
    how much of it there is tells the clip. Each clip is taken at most once; of all such matchings
    this one leaves the fewest clips out, and then changes lengths the least.

    Args:
      seconds: of each clip.
      windows: of the model's encoder that it fills.
      labels: what is heard.
      sources: the collection, or recording, that it is from.
    """
    seconds = np.maximum(np.asarray(seconds, np.float64), 1e-3)
    windows, labels, sources = (np.asarray(values) for values in (windows, labels, sources))
    found = np.full(len(seconds), -1)
    order = np.lexsort((seconds, windows))
    for block in np.array_split(order, -(-len(order) // _BLOCK) or 1):
        lengths = np.log(seconds[block])
        cost = np.abs(lengths[:, None] - lengths)
        alike = windows[block][:, None] != windows[block]
        for values in (labels[block], sources[block]):
            alike |= values[:, None] == values
        cost[alike] = _NEVER
        rows, columns = linear_sum_assignment(cost)
        fits = cost[rows, columns] < _NEVER
        found[block[rows[fits]]] = block[columns[fits]]
    return found
