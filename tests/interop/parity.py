"""Comparing a model here with the one that another library made, saved in its own format."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from alm_jax.interop import pretrained, tensor_files
from alm_jax.interop.family import Pretrained

TOLERANCE = 1e-4  # of the largest absolute value of the reference, f32


def saved(reference: torch.nn.Module, folder) -> Pretrained:
    """The reference with fresh weights, saved by its own library and loaded here."""
    randomise(reference)
    reference.eval().save_pretrained(folder, safe_serialization=True)
    return pretrained.from_pretrained(folder)


def randomise(reference: torch.nn.Module, seed: int = 0) -> None:
    """Moves every parameter off its start, so that no bias is zero and no scale one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def error(ours, theirs, mask=None) -> float:
    """max|a - b| / max|b| over the positions where ``mask`` [b, t] is True."""
    ours = np.asarray(ours, np.float64)
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    if mask is not None:
        ours, theirs = ours[np.asarray(mask)], theirs[np.asarray(mask)]
    assert np.isfinite(ours).all()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def check(pairs: dict, masks: dict | None = None) -> float:
    """Every named pair (ours, theirs) within TOLERANCE; the largest error."""
    errors = {n: error(a, b, (masks or {}).get(n)) for n, (a, b) in pairs.items()}
    print(', '.join(f'{name} {value:.1e}' for name, value in errors.items()))
    assert errors
    wrong = {name: value for name, value in errors.items() if not value <= TOLERANCE}
    assert not wrong, wrong
    return max(errors.values())


def check_input_gradient(ours, theirs, x, target, mask=None) -> None:
    """The gradient of sum(f(x) * target) with respect to a floating-point input, both ways.

    Args:
      ours: jax function of x; theirs: torch function of x.
      x: float32 array; target: of the shape of the result.
      mask: positions of the gradient that count.
    """
    gradient = jax.grad(lambda x: jnp.sum(ours(x).astype(jnp.float32) * target))(jnp.asarray(x))
    leaf = torch.tensor(x, requires_grad=True)
    (theirs(leaf) * torch.tensor(target)).sum().backward()
    check({'input gradient': (gradient, leaf.grad)}, {'input gradient': mask})


def check_round_trip(model: Pretrained, folder) -> None:
    """Saved again, every tensor has the bits of the original file."""
    pretrained.save_pretrained(model, folder)
    before = tensor_files.TensorFiles(model.folder)
    after = tensor_files.TensorFiles(folder)
    assert set(after) <= set(before)
    for name in after:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def padded(ids: list[list[int]], length: int, pad: int = 0):
    """(int32 [b, length], bool [b, length]) of token lists, padded at their ends."""
    out = np.full((len(ids), length), pad, np.int32)
    for row, tokens in enumerate(ids):
        out[row, : len(tokens)] = tokens
    mask = np.arange(length) < np.array([len(tokens) for tokens in ids])[:, None]
    return out, mask
