"""EnCodec as transformers stores it; its convolutional halves also serve Mimi."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.interop import names
from alm_jax.interop.codec import Codec, Codes
from alm_jax.interop.family import Config, Family
from alm_jax.models.audio import encodec, seanet

PAD_MODES = {'reflect': 'reflect', 'constant': 'constant', 'replicate': 'edge'}
NORMS = {'weight_norm': 'weight', 'time_group_norm': 'group', 'none': 'none'}
BANDWIDTHS = (1.5, 3.0, 6.0, 12.0, 24.0)  # kbit/s
BUFFERS = {'inited': 'initialized', 'cluster_size': 'cluster_size', 'embed_avg': 'embed_avg'}


def seanet_size(config: Config) -> seanet.Size:
    """The halves that an EncodecConfig, or another's with its keys, describes."""
    return seanet.Size(
        width=config.get('hidden_size', 128),
        channels=config.get('audio_channels', 1),
        filters=config.get('num_filters', 32),
        ratios=tuple(config.get('upsampling_ratios', (8, 5, 4, 2))),
        kernel=config.get('kernel_size', 7),
        last_kernel=config.get('last_kernel_size', 7),
        residual_kernel=config.get('residual_kernel_size', 3),
        units=config.get('num_residual_layers', 1),
        dilation_growth=config.get('dilation_growth_rate', 2),
        compress=config.get('compress', 2),
        shortcut=config.get('use_conv_shortcut', True),
        lstm_layers=config.get('num_lstm_layers', 2),
        causal=config.get('use_causal_conv', True),
        pad_mode=config_lib.choose(PAD_MODES, config.get('pad_mode', 'reflect'), where='pad_mode'),
        norm=config_lib.choose(NORMS, config.get('norm_type', 'weight_norm'), where='norm_type'),
        trim_right_ratio=config.get('trim_right_ratio', 1.0),
    )


def codebooks_of(config: Config, bandwidth: float) -> int:
    """How many codebooks a bandwidth, in kbit/s, has room for."""
    hop = math.prod(config.get('upsampling_ratios', (8, 5, 4, 2)))
    rate = math.ceil(config.get('sampling_rate', 24_000) / hop)
    bits = math.ceil(math.log2(config.get('codebook_size', 1024)))
    return max(1, int(1000 * bandwidth // (rate * bits)))


def module(config: Config) -> encodec.Encodec:
    """The codec that an EncodecConfig describes."""
    seconds, overlap = config.get('chunk_length_s'), config.get('overlap')
    chunk = stride = None
    if seconds is not None:
        chunk = stride = int(seconds * config.get('sampling_rate', 24_000))
        if overlap is not None:
            stride = max(1, int((1.0 - overlap) * chunk))
    size = encodec.Size(
        halves=seanet_size(config),
        codebooks=codebooks_of(config, config.get('target_bandwidths', BANDWIDTHS)[-1]),
        rows=config.get('codebook_size', 1024),
        chunk=chunk,
        chunk_stride=stride,
        normalise=config.get('normalize', False),
    )
    return encodec.Encodec(size)


def inputs(config: Config) -> tuple:
    """(waveform,) of two codes."""
    hop = math.prod(config.get('upsampling_ratios', (8, 5, 4, 2)))
    return (jnp.zeros((1, 2 * hop, config.get('audio_channels', 1))),)


def seanet_table(size: seanet.Size) -> names.Table:
    """Of EncodecEncoder and EncodecDecoder, whose layers are counted through with activations."""

    def conv(theirs, ours, kind=names.conv):
        rules = kind(f'{theirs}.conv', f'{ours}/conv')
        if size.norm == 'weight':
            return names.weight_normed(rules)
        return [*rules, *(names.norm(f'{theirs}.norm', f'{ours}/norm') * (size.norm == 'group'))]

    def units(first, ours):
        rules = []
        for i in range(size.units):
            theirs, unit = f'{half}.layers.{first + i}', f'{ours}/unit_{i}'
            rules += conv(f'{theirs}.block.1', f'{unit}/dilated')
            rules += conv(f'{theirs}.block.3', f'{unit}/pointwise')
            rules += conv(f'{theirs}.shortcut', f'{unit}/shortcut') * size.shortcut
        return rules

    rules = []
    for half in ('encoder', 'decoder'):
        rules += conv(f'{half}.layers.0', f'{half}/conv_in')
        index = 1
        if size.lstm_layers and half == 'decoder':
            rules += lstm_table(f'{half}.layers.1', f'{half}/lstm')
            index += 1
        for stage in range(len(size.ratios)):
            ours = f'{half}/stage_{stage}'
            if half == 'encoder':
                rules += units(index, ours)
                rules += conv(f'{half}.layers.{index + size.units + 1}', f'{ours}/down')
            else:
                up = conv(f'{half}.layers.{index + 1}', f'{ours}/up', names.conv_transpose)
                rules += [*up, *units(index + 2, ours)]
            index += size.units + 2
        if size.lstm_layers and half == 'encoder':
            rules += lstm_table(f'{half}.layers.{index}', f'{half}/lstm')
            index += 1
        rules += conv(f'{half}.layers.{index + 1}', f'{half}/conv_out')
    return rules


def lstm_table(theirs: str, ours: str) -> names.Table:
    """torch's LSTM; its gates are in our order."""
    pairs = {'weight_ih_l{}': 'input/kernel', 'weight_hh_l{}': 'recurrent_kernel'}
    rules = [
        names.Rule((f'{theirs}.lstm.{their}',), (f'{ours}/layers/{{}}/{our}',), _turned, _turned)
        for their, our in pairs.items()
    ]
    for their, our in {'bias_ih_l{}': 'input/bias', 'bias_hh_l{}': 'recurrent_bias'}.items():
        rules += names.array(f'{theirs}.lstm.{their}', f'{ours}/layers/{{}}/{our}')
    return rules


def _turned(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [arrays[0].T]


def table(config: Config) -> names.Table:
    """Of EncodecModel, weight norm in both of torch's styles."""
    theirs, ours = 'quantizer.layers.{}.codebook', 'quantizer/layers/{}'
    rules = names.array(f'{theirs}.embed', f'{ours}/codebook')
    for their, our in BUFFERS.items():
        rules += names.array(f'{theirs}.{their}', f'batch_stats/{ours}/{our}')
    return [*seanet_table(seanet_size(config)), *rules]


class EncodecCodec(Codec):
    """EnCodec: ``encode`` at a bandwidth, ``decode``. Calling it: see ``models.audio.encodec``."""

    def padded_samples(self, samples: int) -> int:
        """To whole chunks where there are any."""
        size = self.module.size
        if size.chunk is None:
            return samples
        return (-(-samples // size.chunk_stride) - 1) * size.chunk_stride + size.chunk

    def encode(
        self, waveform, *, sampling_rate, codebooks=None, bandwidth: float | None = None
    ) -> Codes:
        """As ``Codec.encode``; without ``codebooks`` their number follows from ``bandwidth``.

        Args:
          waveform, sampling_rate, codebooks: see there.
          bandwidth: in kbit/s, one of config.json's target_bandwidths; None is the smallest, as in
            the original.

        Raises:
          ConfigError: also another bandwidth, or one beside ``codebooks``.
        """
        if codebooks is None:
            known = self.config.get('target_bandwidths', BANDWIDTHS)
            bandwidth = known[0] if bandwidth is None else bandwidth
            if bandwidth not in known:
                raise ConfigError(f'bandwidth is {bandwidth}; {self.folder} has {list(known)}.')
            codebooks = codebooks_of(self.config, bandwidth)
        elif bandwidth is not None:
            raise ConfigError('give codebooks or bandwidth, not both.')
        return super().encode(waveform, sampling_rate=sampling_rate, codebooks=codebooks)

    def decode(self, codes: Codes | np.ndarray) -> list[np.ndarray]:
        """As ``Codec.decode``; where chunks are normalised, codes alone are refused."""
        if self.module.size.normalise and getattr(codes, 'scales', None) is None:
            raise ConfigError(f'{self.folder} normalises; give the Codes of encode, with scales.')
        return super().decode(codes)


FAMILIES = (
    Family(
        'EnCodec',
        ('encodec',),
        module,
        inputs,
        table,
        model=EncodecCodec,
        reference='transformers EncodecModel',
    ),
)
