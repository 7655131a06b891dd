"""YAMNet: the variables of its SavedModel, as ``python -m alm_jax.interop convert`` writes them."""

import re
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np

from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS
from alm_jax.interop import names
from alm_jax.interop.audio_encoder import AudioEncoder
from alm_jax.interop.family import Config, Family
from alm_jax.models.audio import yamnet

# Keras numbers the layers that have weights: convolution and batch norm alternate, and the
# classifier is last.
_LAYER = 'layer-1/layer/_func/_yamnet/layer_with_weights-{}/'
WEIGHTS = re.compile(_LAYER.format(r'\d+'))
_FRONT_END = PRESETS['yamnet']


class YamNetEncoder(AudioEncoder):
    """Patch embeddings and logits of 521 AudioSet classes; see ``models.audio.yamnet.YamNet``."""

    @property
    def sampling_rate(self) -> int:
        """16 kHz."""
        return _FRONT_END.sampling_rate

    def inputs(self, clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(log-mel [b, t, 64], frames [b]); frames beyond a clip's own count as silence."""
        mels = [log_mel(clip[None], _FRONT_END)[0] for clip in clips]
        frames = np.array([len(mel) for mel in mels], np.int32)
        mel = np.zeros((len(mels), frames.max(), yamnet.MEL_BINS), np.float32)
        for row, of_clip in enumerate(mels):
            mel[row, : len(of_clip)] = of_clip
        return mel, frames


def is_yamnet(variables: Iterable[str]) -> bool:
    """Whether the variables of a SavedModel, without the end of their names, are YAMNet's."""
    last = _LAYER.format(2 * len(_convolutions()))
    return f'{last}kernel' in variables


def module(config: Config) -> yamnet.YamNet:
    """There is one size."""
    del config
    return yamnet.YamNet()


def inputs(config: Config) -> tuple:
    """(log-mel, frames) of one patch."""
    del config
    return jnp.zeros((1, yamnet.PATCH_FRAMES, yamnet.MEL_BINS)), jnp.array([yamnet.PATCH_FRAMES])


def table(config: Config) -> names.Table:
    """Of the SavedModel's variables."""
    del config
    layers = _convolutions()
    rules = names.array(_LAYER.format(2 * len(layers)) + 'kernel', 'classifier/kernel')
    rules += names.array(_LAYER.format(2 * len(layers)) + 'bias', 'classifier/bias')
    for number, layer in enumerate(layers):
        conv, norm = _LAYER.format(2 * number), _LAYER.format(2 * number + 1)
        if layer.endswith('depthwise'):
            rules.append(_turned(f'{conv}depthwise_kernel', layer, _swap, _swap))
        elif layer.endswith('pointwise'):
            rules.append(
                _turned(f'{conv}kernel', layer, lambda k: k[0, 0], lambda k: k[None, None])
            )
        else:
            rules += names.array(f'{conv}kernel', f'{layer}/kernel')
        rules += names.array(f'{norm}beta', f'{layer}/norm/bias')
        rules += names.array(f'{norm}moving_mean', f'batch_stats/{layer}/norm/mean')
        rules += names.array(f'{norm}moving_variance', f'batch_stats/{layer}/norm/var')
    return rules


def _convolutions() -> list[str]:
    parts = [f'layer{i}_{p}' for i in range(2, 15) for p in ('depthwise', 'pointwise')]
    return ['layer1', *parts]


def _swap(kernel: np.ndarray) -> np.ndarray:
    return kernel.swapaxes(2, 3)


def _inner(kernel: np.ndarray) -> np.ndarray:
    return kernel[0, 0]


def _wrapped(kernel: np.ndarray) -> np.ndarray:
    return kernel[None, None]


def _turned(theirs, layer, read, write) -> names.Rule:
    return names.Rule(
        (theirs,), (f'{layer}/kernel',), lambda a: [read(a[0])], lambda a: [write(a[0])]
    )


FAMILIES = (
    Family(
        'YAMNet',
        ('yamnet',),
        module,
        inputs,
        table,
        model=YamNetEncoder,
        reference="YAMNet's SavedModel, its layers in torch",
    ),
)
