"""Which short clips share a window: planned on a histogram of lengths, so for any number of clips.

Best fit, longest first, over counts of equal lengths instead of clips; after Krell et al. 2021
(arXiv:2107.02027), section 3.2, who pack histograms of text lengths in this way.
"""

import bisect

import numpy as np

MAX_CLIPS = 8  # in a pack; rows have this many places for starts and texts
_STEPS = 512  # into which a window of seconds is divided


def pack(
    seconds: np.ndarray, window: float, most: int = MAX_CLIPS, steps: int = _STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Packs every clip once; a clip longer than the window has a pack of its own.

    Args:
      seconds: float [n], lengths of the clips, in whatever unit.
      window: what a pack holds of them.
      most: clips in a pack.
      steps: lengths are rounded up to this share of the window.

    Returns:
      (uint32 [n] clips of all packs end to end, int64 [packs + 1] where each pack starts). Which
      clips of equal length come together is arbitrary, but the same every time.
    """
    exact = np.ceil(seconds.astype(np.float64) / window * steps)
    rounded = np.clip(exact, 1, steps).astype(np.uint16)
    counts = np.bincount(rounded, minlength=steps + 1)
    # Clips of one length in an arbitrary order: neighbours in a corpus are often alike.
    order = np.arange(len(seconds), dtype=np.uint32)
    np.random.Generator(np.random.Philox(len(seconds))).shuffle(order)
    by_length = order[np.argsort(rounded[order], kind='stable')]
    taken = np.cumsum(counts) - counts
    members, sizes = [np.zeros(0, np.uint32)], [np.zeros(0, int)]
    for lengths, repeats in patterns(counts, most):
        columns = []
        for length in lengths:
            columns.append(by_length[taken[length] : taken[length] + repeats])
            taken[length] += repeats
        members.append(np.stack(columns, axis=1).ravel())
        sizes.append(np.full(repeats, len(lengths)))
    return np.concatenate(members), np.concatenate([[0], np.cumsum(np.concatenate(sizes))])


def patterns(counts: np.ndarray, most: int = MAX_CLIPS) -> list[tuple[tuple[int, ...], int]]:
    """Packs as (lengths in one, how many such packs).

    Args:
      counts: int [steps + 1], clips of each length; a pack holds ``steps``.
      most: clips in a pack.
    """
    steps = len(counts) - 1
    done: list[tuple[tuple[int, ...], int]] = []
    open_packs: dict[int, list[tuple[tuple[int, ...], int]]] = {}  # by the room that is left
    rooms: list[int] = []  # the keys of open_packs, rising
    for length in range(steps, 0, -1):
        left = int(counts[length])
        while left:
            at = bisect.bisect_left(rooms, length)
            if at == len(rooms):  # none fits: new packs, as many as there are clips
                lengths, available, room = (), left, steps
            else:
                room = rooms[at]
                lengths, available = open_packs[room].pop()
                if not open_packs[room]:
                    del open_packs[room], rooms[at]
            used = min(left, available)
            if available > used and lengths:
                _keep(open_packs, rooms, room, (lengths, available - used))
            lengths, room, left = (*lengths, length), room - length, left - used
            if room and len(lengths) < most:
                _keep(open_packs, rooms, room, (lengths, used))
            else:
                done.append((lengths, used))
    return done + [pattern for room in rooms for pattern in open_packs[room]]


def _keep(open_packs: dict, rooms: list[int], room: int, pattern: tuple) -> None:
    if room not in open_packs:
        open_packs[room] = []
        bisect.insort(rooms, room)
    open_packs[room].append(pattern)
