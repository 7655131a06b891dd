"""What is in a checkpoint, as a table for a reader."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.interop import sources

# Numbers of a config.json that say nothing about size.
_NOT_SIZES = ('_id', '_ids', 'dropout', 'layerdrop', '_range', '_factor', 'prob', 'length')


def table(source: sources.Source) -> str:
    """Family, sizes, every tensor with its name here, totals, and the names that do not match."""
    account = sources.account(source)
    known = {} if account is None else account.ours
    rows = [('tensor', 'shape', 'dtype', 'bytes', 'here')]
    for stored in source.stored:
        rows.append(
            (
                stored.name,
                ' x '.join(map(str, stored.shape)) or 'scalar',
                stored.dtype,
                f'{stored.nbytes:,}',
                _here(stored, source, account, known),
            )
        )
    lines = [*_head(source), '', *_aligned(rows), '', *_totals(source)]
    if account is not None:
        lines += _unmatched('in the files, not in the model', account.left)
        lines += _unmatched('in the model, not in the files', account.missing)
        lines += _unmatched('of another shape than config.json says', account.misfits)
        if not account.left + account.missing + account.misfits:
            count = sum(int(np.prod(leaf.shape)) for leaf in account.shapes.values())
            lines.append(f'all names match: {len(account.shapes)} arrays, {count:,} values here')
    return '\n'.join(lines) + '\n'


def _here(stored, source, account, known) -> str:
    if source.kind == sources.RUN:
        return ', '.join(stored.names)
    if account is None:
        return '?'
    if not stored.names:
        return '(not a part of the model)'
    ours = [name for theirs in stored.names for name in known.get(theirs, ())]
    if ours:
        return ' + '.join(ours)
    return 'NO PLACE' if set(stored.names) & set(account.left) else '(unused)'


def _head(source: sources.Source) -> list[str]:
    lines = [f'{source.path}', f'kind       {source.kind}']
    kind = source.config.get('model_type')
    if source.kind == sources.RUN:
        model = source.config.get('model', {})
        lines.append(f'family     {model.get("family", "?")}')
        lines += [f'{part:10} {_words(model[part])}' for part in ('audio', 'text') if part in model]
        return lines
    if source.family is not None:
        lines.append(f'family     {source.family.name} (model_type {kind})')
        lines.append(f'reference  {source.family.reference or "UNPROVEN"}')
    else:
        lines.append(f'family     unknown here (model_type {kind})')
    for part, sizes in _sizes(source.config):
        lines.append(f'{part or "sizes":10} {", ".join(sizes)}')
    return lines


def _words(part: Mapping[str, Any]) -> str:
    return ', '.join(f'{key} {value}' for key, value in part.items())


def _sizes(config: Mapping[str, Any], part: str = '') -> Iterator[tuple[str, list[str]]]:
    """(sub-config, ['hidden_size 768', ...]) of a config.json, outermost first."""
    found, inner = [], []
    for key, value in sorted(config.items()):
        if isinstance(value, Mapping) and key.endswith('config'):
            inner.append((key, value))
        elif _is_size(key, value):
            found.append(f'{key} {value}')
    if found:
        yield part, found
    for key, value in inner:
        yield from _sizes(value, key)


def _is_size(key: str, value: Any) -> bool:
    if key.endswith(_NOT_SIZES) or key.startswith('_'):
        return False
    numbers = value if isinstance(value, list) and 0 < len(value) <= 8 else [value]
    return all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell; that of bytes is flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        '  '.join(
            cell.rjust(width) if i == 3 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _totals(source: sources.Source) -> list[str]:
    by_dtype: dict[str, list[int]] = {}
    for stored in source.stored:
        count = by_dtype.setdefault(stored.dtype, [0, 0, 0])
        values = int(np.prod(stored.shape, dtype=np.int64))
        for i, number in enumerate((1, values, stored.nbytes)):
            count[i] += number
    lines = [
        f'{dtype}: {tensors} tensors, {values:,} values, {nbytes:,} bytes'
        for dtype, (tensors, values, nbytes) in sorted(by_dtype.items())
    ]
    if len(by_dtype) != 1:
        tensors, values, nbytes = (sum(c[i] for c in by_dtype.values()) for i in range(3))
        lines.append(f'in all: {tensors} tensors, {values:,} values, {nbytes:,} bytes')
    return lines


def _unmatched(what: str, unmatched: Sequence[str]) -> list[str]:
    return [f'{len(unmatched)} {what}:', *(f'  {n}' for n in unmatched)] if unmatched else []
