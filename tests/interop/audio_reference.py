"""What the published audio encoders need before they are compared: small sizes, settled weights."""

import contextlib
import types

import numpy as np
import parity
import pytest
import torch
import transformers
from bare_packages import module

HTSAT = {
    'patch_embeds_hidden_size': 16,
    'depths': [2],
    'num_attention_heads': [2],
    'spec_size': 128,
}
GPT2 = {'n_embd': 32, 'n_layer': 2, 'n_head': 2, 'n_positions': 96, 'vocab_size': 80}


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


def small_htsat() -> torch.nn.Module:
    """msclap's own HTS-AT, of the size of HTSAT."""
    htsat = module('msclap.models.htsat', 'torchlibrosa')
    return htsat.HTSAT_Swin_Transformer(
        spec_size=HTSAT['spec_size'],
        embed_dim=HTSAT['patch_embeds_hidden_size'],
        depths=HTSAT['depths'],
        num_heads=HTSAT['num_attention_heads'],
        config=htsat.config,
    )


def from_config(make):
    """In the place of a class whose from_pretrained would fetch weights."""
    return types.SimpleNamespace(from_pretrained=lambda name: make())


def gpt2(make, **size) -> torch.nn.Module:
    """One of transformers' GPT-2s; no token ends a text."""
    ends = {'bos_token_id': None, 'eos_token_id': None}
    return make(transformers.GPT2Config(**size, **ends, attn_implementation='eager'))


def noise(*lengths: int) -> list[np.ndarray]:
    """Clips of so many samples, always the same."""
    rng = np.random.default_rng(0)
    return [(0.3 * rng.normal(size=n)).astype(np.float32) for n in lengths]


def filled(clip: np.ndarray, length: int) -> np.ndarray:
    """As msclap makes a clip as long as its window: repeated and cut."""
    return np.resize(clip, length)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Of unit norm over the last axis."""
    return x / x.norm(dim=-1, keepdim=True)
