"""What the published audio encoders need before they are compared: small sizes, settled weights."""

import contextlib

import parity
import pytest
import torch


@contextlib.contextmanager
def empty_convolutions():
    """Convolutions made here hold nothing: drawing weights that are then replaced takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, 'reset_parameters', lambda self: None)
        yield


def narrow(cnn14, block, widths, embedding: int) -> None:
    """Gives a Cnn14 blocks of its own kind with fewer channels, and heads to fit."""
    for number, (before, width) in enumerate(zip((1, *widths), widths), start=1):
        setattr(cnn14, f'conv_block{number}', block(before, width))
    cnn14.fc1 = torch.nn.Linear(widths[-1], embedding)
    cnn14.fc_audioset = torch.nn.Linear(embedding, 527)


def settle(reference: torch.nn.Module) -> None:
    """Random parameters, and statistics as after training, of log-mel in dB in the first norm.

    The DFT and the mel filters, which are frozen parameters there, stay.
    """
    fixed = {n: p.clone() for n, p in reference.named_parameters() if '_extractor.' in n}
    parity.randomise(reference)
    with torch.no_grad():
        for name, value in fixed.items():
            reference.get_parameter(name).copy_(value)
        for name, part in reference.named_modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                mel = name.endswith('bn0')
                part.running_mean.normal_(-30 if mel else 0, 0.5)
                part.running_var.uniform_(*((100, 200) if mel else (0.5, 2)))
