"""The charts of the page, as PNG bytes. Figures are made without pyplot: no global state."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

_COLOUR = '#7b3fa0'


def histogram(
    counts: np.ndarray, edges: np.ndarray, label: str, logarithmic: bool = False
) -> bytes:
    """Bars between ``edges`` [n + 1], of which the last may be infinite; empty ends left out."""
    used = np.flatnonzero(counts)
    first, last = (used[0], used[-1] + 1) if len(used) else (0, 1)
    counts, edges = counts[first:last], edges[first : last + 1].astype(float)
    if np.isinf(edges[-1]):
        edges[-1] = 2 * edges[-2] - edges[-3] if len(edges) > 2 else 2 * edges[-2]  # and more
    if logarithmic and edges[0] <= 0:
        edges[0] = edges[1] / 1.3
    figure, axes = _panel()
    axes.stairs(counts, edges, fill=True, color=_COLOUR)
    if logarithmic:
        axes.set_xscale('log')
        axes.xaxis.set_major_formatter(lambda value, _: f'{value:g}')
    axes.set_xlabel(label)
    axes.set_ylabel('records')
    return _png(figure)


def bars(names: Sequence[str], counts: Sequence[int], label: str) -> bytes:
    """One bar a name."""
    figure, axes = _panel()
    axes.bar(range(len(names)), counts, color=_COLOUR)
    turned = len(names) > 6 or max(map(len, names), default=0) > 6
    axes.set_xticks(range(len(names)), names, rotation=45 if turned else 0)
    axes.set_xlabel(label)
    axes.set_ylabel('records')
    return _png(figure)


def _panel():
    figure = Figure(figsize=(4.4, 2.9), layout='constrained')
    axes = figure.subplots()
    axes.grid(axis='y', alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.yaxis.get_major_locator().set_params(integer=True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=130)
    return buffer.getvalue()
