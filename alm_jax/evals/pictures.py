"""The pictures of the report, as PNG bytes. Figures are made without pyplot: no global state."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure


def curve(
    points: Sequence[tuple[float, float]],
    intervals: Sequence[Sequence[float] | None] = (),
    *,
    from_zero: bool = False,
    boundaries: Sequence[int] = (),
) -> bytes:
    """A small panel of (step, value), with the interval of each point where there is one.

    ``boundaries`` are the last steps of stages, drawn as dashed lines.
    """
    figure = Figure(figsize=(4, 2.5), layout='constrained')
    axes = figure.subplots()
    steps, values = np.array(points, float).T
    line = axes.plot(steps, values, marker='o' if intervals else '', markersize=4)[0]
    for step, interval in zip(steps, intervals):
        if interval:
            axes.plot([step, step], interval, color=line.get_color(), alpha=0.5)
    for step in boundaries:
        axes.axvline(step, color='gray', linestyle='--', linewidth=1)
    axes.set_xlabel('step')
    axes.ticklabel_format(useOffset=False)
    if from_zero:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    return _png(figure)


def matrix(
    values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], **names: str
) -> bytes:
    """A matrix as a heat map; ``names`` are the axis labels 'row', 'column' and 'value'."""
    values = np.asarray(values, float)
    size = 3.5 + 0.17 * max(values.shape)
    figure = Figure(figsize=(size + 1.5, size), layout='constrained')
    axes = figure.subplots()
    drawn = axes.imshow(values, cmap='magma', aspect='auto')
    axes.set_xticks(range(len(columns)), [_short(c) for c in columns], rotation=90, fontsize=7)
    axes.set_yticks(range(len(rows)), [_short(r) for r in rows], fontsize=7)
    axes.set_xlabel(names['column'])
    axes.set_ylabel(names['row'])
    figure.colorbar(drawn, ax=axes, shrink=0.6, label=names['value'])
    return _png(figure)


def _short(text: str, length: int = 32) -> str:
    text = text.replace('$', r'\$')  # not mathematics
    return text if len(text) <= length else text[: length - 1] + '…'


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    return buffer.getvalue()
