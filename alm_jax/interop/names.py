"""Name tables: which of their tensors is which of ours, both ways.

A table is a list of rules. A rule pairs patterns of names, where ``{}`` stands for a number, and
says how arrays are turned. The helpers below make the rules of the usual layers; ours are canonical
names (``layers/3/attn/query/kernel``), and buffers live under 'batch_stats/'.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from alm_jax.config import ConfigError

Arrays = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Their tensors of some names are our arrays of others.

    Attributes:
      theirs, ours: patterns with the same numbers in the same order, ``{}`` each.
      read: their arrays -> ours.
      write: our arrays -> theirs; the exact inverse.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    read: Callable[[Arrays], Arrays] = list
    write: Callable[[Arrays], Arrays] = list


@dataclasses.dataclass(frozen=True)
class Entry:
    """A rule for given numbers."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    rule: Rule


Table = Sequence[Rule]


def array(theirs: str, ours: str) -> list[Rule]:
    """The same array."""
    return [Rule((theirs,), (ours,))]


def embedding(theirs: str, ours: str) -> list[Rule]:
    """torch's Embedding."""
    return array(f'{theirs}.weight', f'{ours}/embedding')


def linear(theirs: str, ours: str) -> list[Rule]:
    """torch's Linear: [out, in] is our [in, out]."""
    turned = functools.partial(_each, np.transpose)
    return [
        Rule((f'{theirs}.weight',), (f'{ours}/kernel',), turned, turned),
        *array(f'{theirs}.bias', f'{ours}/bias'),
    ]


def norm(theirs: str, ours: str) -> list[Rule]:
    """torch's LayerNorm or GroupNorm, or an RMS norm."""
    return array(f'{theirs}.weight', f'{ours}/scale') + array(f'{theirs}.bias', f'{ours}/bias')


def conv(theirs: str, ours: str) -> list[Rule]:
    """torch's Conv1d or Conv2d: [out, in, *size] is our [*size, in, out]."""
    return [
        Rule(
            (f'{theirs}.weight',),
            (f'{ours}/kernel',),
            functools.partial(_each, _conv_to_ours),
            functools.partial(_each, _conv_to_theirs),
        ),
        *array(f'{theirs}.bias', f'{ours}/bias'),
    ]


def conv_transpose(theirs: str, ours: str) -> list[Rule]:
    """torch's ConvTranspose1d: [in, out, size] is our [size, in, out]."""

    def turned(arrays):
        return [arrays[0].transpose(2, 0, 1)]

    def back(arrays):
        return [arrays[0].transpose(1, 2, 0)]

    return [
        Rule((f'{theirs}.weight',), (f'{ours}/kernel',), turned, back),
        *array(f'{theirs}.bias', f'{ours}/bias'),
    ]


def weight_normed(rules: Sequence[Rule], axis: int = 0) -> list[Rule]:
    """The rules of a convolution over time whose weight torch has split into a length and a vector.

    Both names of the two are read; the newer ones are written. ``axis`` is torch's ``dim``: of the
    weight's axes the one that has a length for each index.
    """
    first, *others = rules
    shape = [-1 if i == axis else 1 for i in range(3)]
    theirs, ours = first.theirs[0].removesuffix('.weight'), first.ours[0]
    split = []
    for length, vector in (
        ('parametrizations.weight.original0', 'parametrizations.weight.original1'),
        ('weight_g', 'weight_v'),
    ):
        split += [
            dataclasses.replace(first, theirs=(f'{theirs}.{vector}',), ours=(f'{ours}_v',)),
            Rule(
                (f'{theirs}.{length}',),
                (f'{ours}_g',),
                lambda arrays: [arrays[0].reshape(-1)],
                lambda arrays: [arrays[0].reshape(shape)],
            ),
        ]
    return [*split, *others]


def pointwise(theirs: str, ours: str, *, axes: int = 2) -> list[Rule]:
    """torch's Conv2d (or Conv1d, one of the ``axes``) of size 1, which is our Dense.

    [out, in, 1, 1] is [in, out].
    """

    def write(arrays):
        return [arrays[0].T.reshape(*arrays[0].T.shape, *(1,) * axes)]

    return [
        Rule(
            (f'{theirs}.weight',),
            (f'{ours}/kernel',),
            lambda arrays: [arrays[0].reshape(arrays[0].shape[:2]).T],
            write,
        ),
        *array(f'{theirs}.bias', f'{ours}/bias'),
    ]


def batch_norm(theirs: str, ours: str) -> list[Rule]:
    """torch's BatchNorm; its count of batches has no place here."""
    return [
        *norm(theirs, ours),
        *array(f'{theirs}.running_mean', f'batch_stats/{ours}/mean'),
        *array(f'{theirs}.running_var', f'batch_stats/{ours}/var'),
    ]


def fused_linear(theirs: str, ours: Sequence[str], *, transpose: bool = True) -> list[Rule]:
    """One Linear whose outputs, cut into equal parts, are several of ours.

    Args:
      transpose: False where the file has [in, out] already (GPT-2's Conv1D).
    """
    count = len(ours)

    def read_kernel(arrays):
        return np.split(arrays[0].T if transpose else arrays[0], count, axis=1)

    def write_kernel(arrays):
        whole = np.concatenate(arrays, axis=1)
        return [whole.T if transpose else whole]

    kernels = Rule(
        (f'{theirs}.weight',), tuple(f'{o}/kernel' for o in ours), read_kernel, write_kernel
    )
    biases = Rule(
        (f'{theirs}.bias',),
        tuple(f'{o}/bias' for o in ours),
        lambda arrays: np.split(arrays[0], count),
        lambda arrays: [np.concatenate(arrays)],
    )
    return [kernels, biases]


def under(table: Table, theirs: str = '', ours: str = '') -> list[Rule]:
    """The table of a part: prefixes for both sides; 'batch_stats/' stays in front."""

    def prefixed(name):
        head, stats, tail = name.rpartition('batch_stats/')
        return f'{head}{stats}{ours}{tail}'

    return [
        dataclasses.replace(
            rule,
            theirs=tuple(theirs + name for name in rule.theirs),
            ours=tuple(prefixed(name) for name in rule.ours),
        )
        for rule in table
    ]


def match(
    table: Table, theirs: Iterable[str], ours: Iterable[str], *, unused: Sequence[str] = ()
) -> list[Entry]:
    """The entries that turn their tensors into our arrays, each of ours exactly once.

    Args:
      theirs: names in the files.
      ours: canonical names of the model.
      unused: regexes (full match) of their names that have no place in the model.

    Raises:
      ConfigError: lists every name of theirs that no rule takes, and every one of ours that no
        tensor fills.
    """
    entries, left, missing = pair(table, theirs, ours, unused=unused)
    problems = _listed(left, 'in the files, not in the model')
    problems += _listed(missing, 'in the model, not in the files')
    if problems:
        lines = '\n'.join(problems)
        raise ConfigError(f'{len(left) + len(missing)} names do not match:\n{lines}')
    return entries


def _listed(names: Sequence[str], what: str) -> list[str]:
    more = [f'  ... and {len(names) - 20} more'] * (len(names) > 20)
    return [f'  {name}: {what}' for name in names[:20]] + more


def pair(
    table: Table, theirs: Iterable[str], ours: Iterable[str], *, unused: Sequence[str] = ()
) -> tuple[list[Entry], list[str], list[str]]:
    """``match`` of what matches: (entries, names of theirs left over, names of ours unfilled)."""
    available, wanted = set(theirs), set(ours)
    taken, filled, entries = set(), set(), []
    for rule in table:
        pattern = re.compile(re.escape(rule.theirs[0]).replace(r'\{\}', r'(\d+)'))
        for name in sorted(available - taken):
            if not (found := pattern.fullmatch(name)):
                continue
            entry = _entry(rule, found.groups())
            if available.issuperset(entry.theirs) and wanted.issuperset(entry.ours):
                entries.append(entry)
                taken.update(entry.theirs)
                filled.update(entry.ours)
    left = sorted(n for n in available - taken if not any(re.fullmatch(p, n) for p in unused))
    return entries, left, sorted(wanted - filled)


def their_arrays(table: Table, ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All of our arrays under their names.

    Raises:
      ConfigError: an array that no rule writes.
    """
    written, used = {}, set()
    for rule in table:
        pattern = re.compile(re.escape(rule.ours[0]).replace(r'\{\}', r'(\d+)'))
        for name in ours:
            found = pattern.fullmatch(name)
            if not found or name in used:
                continue
            entry = _entry(rule, found.groups())
            if all(other in ours for other in entry.ours):
                arrays = rule.write([np.asarray(ours[other]) for other in entry.ours])
                written.update(zip(entry.theirs, (np.asarray(a, order='C') for a in arrays)))
                used.update(entry.ours)
    if left := sorted(set(ours) - used):
        raise ConfigError(f'no rule writes {", ".join(left[:10])}.')
    return written


def _entry(rule: Rule, numbers: Sequence[str]) -> Entry:
    return Entry(
        tuple(name.format(*numbers) for name in rule.theirs),
        tuple(name.format(*numbers) for name in rule.ours),
        rule,
    )


def _each(turn: Callable[[np.ndarray], np.ndarray], arrays: Arrays) -> list[np.ndarray]:
    return [turn(a) for a in arrays]


def _conv_to_ours(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel, (0, 1), (-1, -2))


def _conv_to_theirs(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel, (-1, -2), (0, 1))
