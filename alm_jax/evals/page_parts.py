"""What the pages of evaluations are made of: tables, and the frame around everything."""

import importlib.resources
import os
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

from alm_jax.data.inspection.cards import text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; the header is text."""
    head = ''.join(f'<th>{text(name)}</th>' for name in header)
    body = ''.join(f'<tr>{"".join(f"<td>{cell}</td>" for cell in row)}</tr>' for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def with_interval(metrics: Mapping[str, Any], metric: str) -> str:
    """A score with its interval; '' where it is not defined."""
    value, interval = metrics.get(metric), metrics.get(f'{metric}_ci95')
    if value is None:
        return ''
    spread = f' [{interval[0]:.3f}, {interval[1]:.3f}]' if interval else ''
    return f'{value:.3f}<span class="interval">{spread}</span>'


def write(path: pathlib.Path, title: str, subtitle: str, sections: Mapping[str, str]) -> None:
    """Writes a page atomically: links to its sections, and these by their titles.

    ``title`` and ``subtitle`` are text, sections HTML; an empty one says that nothing is there yet.
    """
    ids = {name: name.lower().replace(' ', '-') for name in sections}
    page = importlib.resources.files('alm_jax.evals').joinpath('report.html').read_text()
    content = string.Template(page).substitute(
        title=text(title),
        subtitle=text(subtitle),
        links=' '.join(f'<a href="#{ids[name]}">{name}</a>' for name in sections),
        sections='\n'.join(
            f'<h2 id="{ids[name]}">{name}</h2>\n{section or "<p>Nothing here yet.</p>"}'
            for name, section in sections.items()
        ),
    )
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    partial.write_text(content, encoding='utf-8')
    os.replace(partial, path)
