"""Writes the page: counts and charts over all records, sounds and suspicions over a sample."""

import importlib.resources
import os
import pathlib
import string
from collections.abc import Mapping, Sequence

from alm_jax.data.inspection import charts, facts, listening
from alm_jax.data.inspection.cards import Cards, picture, text

_ROWS_SHOWN = 20  # of a table
_CLASSES_SHOWN = 60
_RATES_SHOWN = 12
_EXAMPLES_OF_A_SUSPICION = 4  # two pairs of copies
_ROOM = 12_000_000  # bytes of all sounds and spectrograms


def write(
    parts: Sequence,
    out: pathlib.Path,
    *,
    title: str,
    examples: int = 24,
    seed: int = 0,
    workers: int = 2,
) -> pathlib.Path:
    """Writes one page, with everything inside it, about some sources together.

    Args:
      parts: alm_jax.data.sources.Source, such as the splits of a dataset.
      out: the file.
      title: the name that was asked for.
      examples: how many records are shown, chosen by ``seed``.
      workers: processes that read the sample.
    """
    known = facts.gather(parts)
    chosen = listening.choose(parts, max(listening.SAMPLE, examples), seed)
    heard = listening.listen(parts, chosen, workers)
    suspicions = {**known.suspicions, **listening.suspicions(heard, workers)}
    cards = Cards(_ROOM)
    shown = [cards.card(parts[part], number) for part, number in chosen[:examples]]
    total = known.total.records
    sections = {
        'Counts': _counts(known, title),
        'Distributions': _distributions(known),
        'Classes': _table('label', known.categories['label'], known.total, _CLASSES_SHOWN),
        'Examples': f'<p class="note">{len(shown)} of {total:,} records, drawn at random '
        f'(--seed {seed}).</p><div class="cards">{"".join(shown)}</div>',
        'Suspicious records': _suspicious(suspicions, parts, cards),
    }
    listened = (
        'Every record was read and listened to.'
        if len(heard) == total
        else f'Counts and distributions are of all {total:,} records; {len(heard):,} drawn at '
        'random were read and listened to.'
    )
    ids = {name: name.lower().replace(' ', '-') for name in sections}
    page = importlib.resources.files('alm_jax.data.inspection').joinpath('page.html').read_text()
    content = string.Template(page).substitute(
        title=text(title),
        subtitle=f'{listened}',
        links=' '.join(f'<a href="#{ids[name]}">{name}</a>' for name in sections),
        sections='\n'.join(
            f'<h2 id="{ids[name]}">{name}</h2>\n{body or "<p>None.</p>"}'
            for name, body in sections.items()
        ),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f'.{out.name}.{os.getpid()}')
    partial.write_text(content, encoding='utf-8')
    os.replace(partial, out)
    return out


def _counts(known: facts.Facts, title: str) -> str:
    total = known.total
    recordings = sum(distinct for _, distinct, _ in known.parts.values())
    tiles = {
        'records': f'{total.records:,}',
        'hours': _hours(total.seconds),
        'recordings': f'{recordings:,}',
        'captions': f'{sum(n * count for n, count in known.captions.items()):,}',
        'questions': f'{known.turns:,}',
        'mean seconds': f'{total.seconds / max(1, total.records):.1f}',
    }
    drawn = ''.join(
        f'<div class="tile"><b>{value}</b><span>{name}</span></div>'
        for name, value in tiles.items()
        if value != '0'
    )
    rows = [
        [
            text(name.removeprefix(f'{title}:')),
            f'{tally.records:,}',
            _hours(tally.seconds),
            f'{distinct:,}',
            f'{beyond:,}',
        ]
        for name, (tally, distinct, beyond) in known.parts.items()
    ]
    names = ('kind', 'language', 'licence', 'provenance', 'package')
    tables = ''.join(
        f'<div>{table}</div>'
        for name in names
        if (table := _table(name, known.categories[name], total))
    )
    header = ['dataset', 'records', 'hours', 'recordings', 'further cuts or copies']
    return (
        f'<div class="tiles">{drawn}</div>{_rows(header, rows)}<div class="tables">{tables}</div>'
    )


def _table(
    name: str, tallies: Mapping[str, facts.Tally], total: facts.Tally, most: int = _ROWS_SHOWN
) -> str:
    """The values of a column, the commonest first; '' when no record has one."""
    if not any(tallies):
        return ''
    ordered = sorted(tallies.items(), key=lambda item: (-item[1].records, item[0]))
    rows = [
        [
            text(value) or '<em>none</em>',
            f'{tally.records:,}',
            f'{tally.records / total.records:.1%}',
            _hours(tally.seconds),
        ]
        for value, tally in ordered[:most]
    ]
    header = [name, 'records', 'share', 'hours']
    side_by_side = ''.join(
        f'<div>{_rows(header, rows[start : start + _ROWS_SHOWN])}</div>'
        for start in range(0, len(rows), _ROWS_SHOWN)
    )
    more = len(ordered) - len(rows)
    rest = f'<p class="note">... and {more:,} more.</p>' if more > 0 else ''
    count = f'{len([value for value in tallies if value]):,} different'
    return f'<h3>{name} ({count})</h3><div class="tables">{side_by_side}</div>{rest}'


def _distributions(known: facts.Facts) -> str:
    rates = sorted(known.rates.items(), key=lambda item: -item[1].records)[:_RATES_SHOWN]
    captions = sorted(known.captions.items())[:_RATES_SHOWN]
    drawn = {
        'Durations': charts.histogram(
            known.durations, facts.DURATIONS, 'seconds', logarithmic=True
        ),
        'Rates': charts.bars(
            [f'{rate / 1000:g}' for rate, _ in sorted(rates)],
            [tally.records for _, tally in sorted(rates, key=lambda item: item[0])],
            'kHz',
        ),
        'Captions of a record': charts.bars(
            [str(count) for count, _ in captions], [n for _, n in captions], 'captions'
        ),
        'Longest caption of a record': charts.histogram(
            known.caption_chars, facts.CAPTION_CHARS, 'characters'
        ),
    }
    figures = ''.join(
        f'<figure><figcaption>{name}</figcaption>{picture(png, f"{name}, histogram")}</figure>'
        for name, png in drawn.items()
    )
    return f'<div class="panels">{figures}</div>'


def _suspicious(suspicions: Mapping[str, facts.Suspicion], parts: Sequence, cards: Cards) -> str:
    found = {reason: s for reason, s in suspicions.items() if s.count}
    ordered = sorted(found.items(), key=lambda item: -item[1].count)
    summary = [
        [text(reason), f'{s.count:,}', f'{s.of:,}', f'{s.count / s.of:.2%}']
        for reason, s in ordered
    ]
    sections = []
    for reason, suspicion in ordered:
        rows = suspicion.rows[:_EXAMPLES_OF_A_SUSPICION]
        drawn = ''.join(cards.card(parts[part], number) for part, number in rows)
        sections.append(f'<h3 class="reason">{text(reason)}</h3><div class="cards">{drawn}</div>')
    clear = [reason for reason, s in suspicions.items() if not s.count]
    none = f'<p class="note">None is: {text(", ".join(clear))}.</p>' if clear else ''
    table = _rows(['what', 'records', 'of', 'share'], summary) if summary else ''
    return table + none + ''.join(sections)


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = ''.join(f'<th>{text(name)}</th>' for name in header)
    body = ''.join(f'<tr>{"".join(f"<td>{cell}</td>" for cell in row)}</tr>' for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f'{hours:,.0f}' if hours >= 100 else f'{hours:.2f}'
