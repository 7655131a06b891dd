"""How two checkpoints differ: tensor by tensor, then intermediate by intermediate."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from alm_jax.interop import intermediates, sources


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of two arrays of one name.

    Attributes:
      name: canonical where both families are known, else that of the files.
      largest: max|a - b|; NaN in one only is infinite; None when the shapes differ.
      relative: largest / max|b|.
      note: other dtype or shape, or ''.
    """

    name: str
    largest: float | None
    relative: float | None
    note: str = ''

    def exceeds(self, tolerance: float) -> bool:
        """Whether it is more than rounding: another shape or dtype always is."""
        return bool(self.note) or self.relative is None or self.relative > tolerance


@dataclasses.dataclass(frozen=True)
class Report:
    """Of two checkpoints A and B.

    Attributes:
      tensors, intermediates: of the names that both have, the latter in forward order.
      only_a, only_b: tensor names of one alone.
      no_intermediates: why there are none, or ''.
      tolerance: relative differences up to it count as none.
    """

    tensors: list[Difference]
    intermediates: list[Difference]
    only_a: list[str]
    only_b: list[str]
    no_intermediates: str
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        compared = (*self.tensors, *self.intermediates)
        differ = any(one.exceeds(self.tolerance) for one in compared)
        return not (differ or self.only_a or self.only_b)

    @property
    def first(self) -> Difference | None:
        """The first intermediate, in forward order, that differs."""
        return next((one for one in self.intermediates if one.exceeds(self.tolerance)), None)

    def text(self) -> str:
        """For a reader: what differs, and how much of it there is."""
        lines = _listed('tensors', self.tensors, self.tolerance)
        for name, alone in (('A', self.only_a), ('B', self.only_b)):
            if alone:
                lines.append(f'{len(alone)} tensors only in {name}:')
                lines += [f'  {tensor}' for tensor in alone]
        if self.no_intermediates:
            lines.append(f'intermediates: not compared, {self.no_intermediates}')
        else:
            lines += _listed('intermediates', self.intermediates, self.tolerance)
            if first := self.first:
                lines.append(f'first divergence: {first.name}')
        lines.append('equal' if self.equal else 'different')
        return '\n'.join(lines) + '\n'


def diff(
    a: sources.Source, b: sources.Source, *, tolerance: float = 0.0, run: bool = True
) -> Report:
    """Compares two checkpoints.

    Args:
      a, b: see ``sources.open_source``.
      tolerance: on max|a - b| / max|b|.
      run: whether both models are run on the same inputs, drawn from a fixed seed.

    Raises:
      ConfigError: a damaged file, or with ``run`` a model that cannot be made of its file.
    """
    arrays_a, arrays_b, canonical = _arrays(a, b)
    both = [name for name in arrays_a if name in arrays_b]
    dtypes = _dtypes(a, canonical), _dtypes(b, canonical)
    tensors = []
    for name in both:
        note = ''
        if dtypes[0].get(name) != dtypes[1].get(name):
            note = f'{dtypes[0].get(name)} and {dtypes[1].get(name)}'
        tensors.append(compare(name, arrays_a[name], arrays_b[name], note))
    outputs, reason = [], 'left out'
    if run:
        reason, *both_outputs = _outputs(a, b)
        outputs = _compared(*both_outputs) if not reason else []
    return Report(
        tensors,
        outputs,
        [name for name in arrays_a if name not in arrays_b],
        [name for name in arrays_b if name not in arrays_a],
        reason if not outputs else '',
        tolerance,
    )


def compare(name: str, a: np.ndarray, b: np.ndarray, note: str = '') -> Difference:
    """Of two arrays."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return Difference(name, None, None, f'shape {a.shape} and {b.shape}')
    if not a.size:
        return Difference(name, 0.0, 0.0, note)
    wide = np.float64 if a.dtype.itemsize >= 4 or b.dtype.itemsize >= 4 else np.float32
    a, b = a.astype(wide), b.astype(wide)
    with np.errstate(invalid='ignore'):
        apart = np.abs(a - b)
    # Of equal infinities the difference is NaN.
    apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, apart)
    largest = float(np.nan_to_num(apart, nan=np.inf).max())
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return Difference(name, largest, largest / scale if scale else np.inf * largest, note)


def _arrays(a, b) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray], bool]:
    """Both sides by canonical names when both are known, else by those of their files."""
    sides = []
    for source in (a, b):
        if source.kind == sources.RUN:
            sides.append(source.tensors)
            continue
        account = sources.account(source)
        if account is None or account.left:
            return a.tensors, b.tensors, False
        sides.append(sources.Canonical(source, account.entries))
    return *sides, True


def _dtypes(source: sources.Source, canonical: bool) -> dict[str, str]:
    """Name -> stored dtype, under one word for what two formats call differently."""
    words = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16', 'F64': 'float64'}
    stored = {n: words.get(s.dtype, s.dtype) for s in source.stored for n in s.names}
    if not canonical:
        return stored
    if source.kind == sources.RUN:
        named = {s.names[0]: words.get(s.dtype, s.dtype) for s in source.stored if s.names}
        return {name: named.get(_stacked(name), '') for name in source.tensors}
    entries = sources.account(source).entries
    return {name: stored[e.theirs[0]] for e in entries for name in e.ours}


def _stacked(name: str) -> str:
    parts = name.split('/')
    return '/'.join(p for i, p in enumerate(parts) if i == 0 or parts[i - 1] != 'layers')


def _outputs(a, b) -> tuple[str, Any, Any]:
    """(why not, or ''; intermediates of A; of B)."""
    for name, source in (('A', a), ('B', b)):
        if source.kind != sources.RUN and source.family is None:
            return f'{name} is of no known architecture', None, None
    first, second = map(intermediates.load, (a, b))
    if first.shapes() != second.shapes():
        return f'A takes {first.shapes()} and B takes {second.shapes()}', None, None
    programs = [intermediates.Program(first.module)]
    same = first.module == second.module  # then nothing is compiled twice
    programs.append(programs[0] if same else intermediates.Program(second.module))
    return '', *(program(model) for program, model in zip(programs, (first, second)))


def _compared(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> list[Difference]:
    return [compare(name, a[name], b[name]) for name in a if name in b]


def _listed(what: str, compared: list[Difference], tolerance: float) -> list[str]:
    differ = [one for one in compared if one.exceeds(tolerance)]
    lines = [f'{what}: {len(differ)} of {len(compared)} differ']
    if not differ:
        return lines
    width = max(len(one.name) for one in differ)
    lines.append(f'  {"":{width}}  {"max|a-b|":>9}  {"relative":>9}')
    for one in differ:
        numbers = [
            f'{n:9.2e}' if n is not None else f'{"-":>9}' for n in (one.largest, one.relative)
        ]
        lines.append(f'  {one.name:{width}}  {"  ".join(numbers)}  {one.note}'.rstrip())
    return lines


def _number(value: float | None) -> str:
    return f'{"-":>9}' if value is None else f'{value:9.2e}'
