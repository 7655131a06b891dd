"""Comparing neural codecs with the ones of transformers."""

import functools

import jax
import numpy as np
import parity
import torch

AGREEMENT = 0.999  # share of equal codes


def clips(lengths, channels=1, seed=0):
    """(float32 [b, n, c], int [b]): tones under noise, zeros behind their ends."""
    rng = np.random.default_rng(seed)
    time = np.arange(max(lengths))[:, None]
    x = [
        0.3 * np.sin(time * rng.uniform(0.01, 0.5, channels))
        + 0.2 * rng.normal(size=(len(time), channels))
        for _ in lengths
    ]
    mask = time < np.array(lengths)[:, None, None]
    return (np.stack(x) * mask).astype(np.float32), np.array(lengths, np.int32)


def theirs(x_btd) -> torch.Tensor:
    """[b, t, d] here is [b, d, t] there."""
    return torch.tensor(np.asarray(x_btd)).transpose(1, 2)


@functools.cache
def program(module, method, **options):
    """A method of a module, compiled: (variables, *inputs) -> outputs."""
    return jax.jit(functools.partial(module.apply, method=method, **options))


class Recorder:
    """What modules of the reference returned, by the names given."""

    def __init__(self, **modules):
        self.outputs = {name: [] for name in modules}
        for name, module in modules.items():
            module.register_forward_hook(self._keep(name))

    def _keep(self, name):
        def keep(_module, _inputs, output):
            self.outputs[name].append(output.detach().transpose(1, 2))

        return keep

    def last(self):
        """Each module's last output, [b, t, d]."""
        return {name: outputs[-1] for name, outputs in self.outputs.items()}


def check_codes(ours, wanted, mask=None) -> float:
    """Codes [b, q, t] equal at AGREEMENT of the positions where ``mask`` [b, t] is True."""
    ours, wanted = np.asarray(ours), np.asarray(wanted)
    assert ours.shape == wanted.shape, (ours.shape, wanted.shape)
    equal = (ours == wanted).swapaxes(1, 2)
    equal = equal if mask is None else equal[np.asarray(mask)]
    print(f'codes equal {equal.mean():.5f} of {equal.size}')
    assert equal.mean() >= AGREEMENT
    assert len(np.unique(wanted)) > 10
    return float(equal.mean())


def spread_codebooks(tables, latents_bdt, seed=1):
    """Fills codebooks, torch tensors [n, d] each, with vectors a third as long as the residuals.

    So residuals shrink slowly, as those of trained codecs do: codes of what is left after
    cancellation would be those of rounding errors.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = latents_bdt.transpose(1, 2).reshape(-1, latents_bdt.shape[1])
    for table in tables:
        noise = torch.randn(table.shape, generator=generator)
        table.copy_(residual.mean(0) + 0.3 * residual.std(0) * noise)
        residual = residual - table[torch.cdist(residual, table).argmin(dim=1)]


def check_again(model, reference, folder):
    """Written as it was read, and transformers reads it with the same bits."""
    parity.check_round_trip(model, folder)
    again = type(reference).from_pretrained(folder)
    state = again.state_dict()
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, state[name]), name
