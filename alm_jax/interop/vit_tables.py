"""Name tables of vision transformers over spectrograms: AST, PaSST, AudioMAE, CAV-MAE.

Our patches stand band by band within a time step. Where theirs are pictures of frequency over time,
their patches stand step by step within a band, and their patch kernel has frequency first.
"""

import functools

import numpy as np

from alm_jax.interop.names import Arrays, Rule, Table, fused_linear, linear, norm

QKV = ('query', 'key', 'value')


def block(theirs: str, ours: str, norms: tuple[str, str] = ('norm1', 'norm2')) -> Table:
    """A block as timm names it, with fused projections."""
    return [
        *norm(f'{theirs}.{norms[0]}', f'{ours}/attn_norm'),
        *fused_linear(f'{theirs}.attn.qkv', [f'{ours}/attn/{name}' for name in QKV]),
        *linear(f'{theirs}.attn.proj', f'{ours}/attn/out'),
        *norm(f'{theirs}.{norms[1]}', f'{ours}/mlp_norm'),
        *linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/up'),
        *linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/down'),
    ]


def patches_of_pictures(theirs: str) -> Table:
    """The patch embedding, [d, 1, bins, frames]: all axes in reverse are ours."""
    return linear(theirs, 'patch_embedding')


def prefix(*theirs: str) -> Table:
    """Tokens in front, [1, n, d] or [1, 1, d] each."""

    def read(arrays: Arrays) -> Arrays:
        return [np.concatenate([array[0] for array in arrays])]

    def write(arrays: Arrays) -> Arrays:
        return [part[None] for part in np.split(arrays[0], len(theirs))]

    return [Rule(theirs, ('prefix_embedding/embedding',), read, write)]


def positions(theirs: str, bands: int, count: int, pictures: bool) -> Table:
    """Absolute positions [1, count + t * f, d], those of ``count`` tokens in front first."""

    def turn(table: np.ndarray, rows: int) -> np.ndarray:
        """Patches [t * f, d] from order [rows, -1] to the other one."""
        return table.reshape(rows, -1, table.shape[-1]).swapaxes(0, 1).reshape(table.shape)

    def read(arrays: Arrays) -> Arrays:
        first, rest = np.split(arrays[0][0], [count])
        rest = turn(rest, bands) if pictures else rest
        return [first, rest] if count else [rest]

    def write(arrays: Arrays) -> Arrays:
        rest = turn(arrays[-1], len(arrays[-1]) // bands) if pictures else arrays[-1]
        return [np.concatenate([*arrays[:-1], rest])[None]]

    ours = ('position_embedding/embedding',)
    ours = ('prefix_position_embedding/embedding', *ours) if count else ours
    return [Rule((theirs,), ours, read, write)]


def squeezed(theirs: str, ours: str, axes: tuple[int, ...], transpose: bool = False) -> Table:
    """An array with ``axes`` of size one that ours lacks, the other two swapped if so."""

    def read(arrays: Arrays) -> Arrays:
        array = arrays[0].squeeze(axes)
        return [array.T if transpose else array]

    def write(arrays: Arrays) -> Arrays:
        array = arrays[0].T if transpose else arrays[0]
        return [functools.reduce(np.expand_dims, axes, array)]

    return [Rule((theirs,), (ours,), read, write)]
