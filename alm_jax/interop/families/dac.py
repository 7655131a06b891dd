"""DAC as transformers stores it, whose weight norm it has multiplied out."""

import jax.numpy as jnp

from alm_jax.interop import names
from alm_jax.interop.codec import Codec
from alm_jax.interop.family import Config, Family
from alm_jax.models.audio import dac


def size(config: Config) -> dac.Size:
    """What a DacConfig, or another's with its keys, describes."""
    return dac.Size(
        filters=config.get('encoder_hidden_size', 64),
        decoder_width=config.get('decoder_hidden_size', 1536),
        ratios=tuple(config.get('downsampling_ratios', (2, 4, 8, 8))),
        codebooks=config.get('n_codebooks', 9),
        rows=config.get('codebook_size', 1024),
        code_width=config.get('codebook_dim', 8),
    )


def module(config: Config) -> dac.Dac:
    """The codec that a DacConfig describes."""
    return dac.Dac(size(config))


def inputs(config: Config) -> tuple:
    """(waveform,) of two codes."""
    return (jnp.zeros((1, 2 * size(config).hop, 1)),)


def _snake(theirs: str, ours: str) -> names.Table:
    """Their alpha is [1, d, 1]."""
    return [
        names.Rule(
            (f'{theirs}.alpha',),
            (f'{ours}/alpha',),
            lambda arrays: [arrays[0].reshape(-1)],
            lambda arrays: [arrays[0][None, :, None]],
        )
    ]


def _half(strided: names.Table) -> names.Table:
    """What encoder and decoder have alike; ``strided`` is the rules of a stage's convolution."""
    theirs, ours = 'block.{}', 'stage_{}'
    rules = [
        *names.conv('conv1', 'conv_in'),
        *strided,
        *_snake(f'{theirs}.snake1', f'{ours}/snake'),
        *_snake('snake1', 'snake'),
        *names.conv('conv2', 'conv_out'),
    ]
    for i in range(len(dac.DILATIONS)):
        unit, our_unit = f'{theirs}.res_unit{i + 1}', f'{ours}/unit_{i}'
        rules += _snake(f'{unit}.snake1', f'{our_unit}/snake_0')
        rules += names.conv(f'{unit}.conv1', f'{our_unit}/dilated')
        rules += _snake(f'{unit}.snake2', f'{our_unit}/snake_1')
        rules += names.conv(f'{unit}.conv2', f'{our_unit}/pointwise')
    return rules


def encoder_table() -> names.Table:
    """Of DacEncoder."""
    return _half(names.conv('block.{}.conv1', 'stage_{}/down'))


def table(config: Config) -> names.Table:
    """Of DacModel."""
    del config
    decoder = _half(names.conv_transpose('block.{}.conv_t1', 'stage_{}/up'))
    theirs, ours = 'quantizer.quantizers.{}', 'quantizer/layers/{}'
    return [
        *names.under(encoder_table(), 'encoder.', 'encoder/'),
        *names.under(decoder, 'decoder.', 'decoder/'),
        *names.pointwise(f'{theirs}.in_proj', f'{ours}/in_proj', axes=1),
        *names.pointwise(f'{theirs}.out_proj', f'{ours}/out_proj', axes=1),
        *names.array(f'{theirs}.codebook.weight', f'{ours}/codebook'),
    ]


class DacCodec(Codec):
    """DAC: ``encode``, ``decode``. Calling it: see ``models.audio.dac``."""

    @property
    def sampling_rate(self) -> int:
        """See Codec."""
        return self.config.get('sampling_rate', 16_000)

    def padded_samples(self, samples: int) -> int:
        """To whole codes."""
        hop = self.module.size.hop
        return -(-samples // hop) * hop


FAMILIES = (
    Family(
        'DAC',
        ('dac',),
        module,
        inputs,
        table,
        model=DacCodec,
        reference='transformers DacModel',
    ),
)
