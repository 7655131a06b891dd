"""YAMNet: MobileNet v1 over 0.96 s patches of a log-mel spectrogram.

The network of https://github.com/tensorflow/models/tree/master/research/audioset/yamnet (Howard et
al. 2017, https://arxiv.org/abs/1704.04861), trained there on AudioSet's 521 classes.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from alm_jax.models.layers import windows
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.depthwise import depthwise_conv
from alm_jax.models.layers.norm import FrozenBatchNorm

PATCH_FRAMES = 96
MEL_BINS = 64
NUM_CLASSES = 521
SILENCE = math.log(0.001)  # the front end's log-mel of digital silence
STEM_WIDTH = 32
# Stride and width of the depthwise-separable layers 2 to 14.
BLOCKS = (
    *((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)),
    *((1, 512), (1, 512), (1, 512), (1, 512), (1, 512), (2, 1024), (1, 1024)),
)
# Keeps the variance under ReLU, which matters when the frozen statistics are 0 and 1 (scratch).
HE = nn.initializers.variance_scaling(2.0, 'fan_in', 'truncated_normal')


class _Conv(nn.Module):
    """A convolution, frozen batch norm, ReLU.

    Attributes:
      kind: 'full' 3 x 3, 'depthwise' 3 x 3, or 'pointwise' 1 x 1, whose kernel is [in, out].
      width: channels of the result.
    """

    kind: str
    width: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1], self.width)
        if self.kind != 'pointwise':
            shape = (3, 3, 1, self.width)
        kernel = self.param('kernel', HE, shape).astype(self.dtype)
        if self.kind == 'depthwise':
            x = depthwise_conv(x, kernel, self.stride)
        elif self.kind == 'pointwise':
            x = (x.reshape(-1, shape[0]) @ kernel).reshape(*x.shape[:-1], self.width)
        else:
            strides = (self.stride, self.stride)
            numbers = ('NHWC', 'HWIO', 'NHWC')
            x = lax.conv_general_dilated(x, kernel, strides, 'SAME', dimension_numbers=numbers)
        return jax.nn.relu(FrozenBatchNorm(1e-4, name='norm')(x))


class YamNet(nn.Module):
    """YAMNet's embeddings and class scores of the patches of a clip.

    Parameters: ``layer1``, ``layer2_depthwise``, ``layer2_pointwise`` .. ``layer14_pointwise`` and
    ``classifier``; batch-norm statistics in the collection 'batch_stats', never updated.

    Attributes:
      patch_hop: frames between patches; 48 is the original's half overlap.
      scores: whether 'frames' and 'pooled' also hold class probabilities, 'pooled' their mean over
        the clip, which are what the classifier knows of the sounds that its own training had names
        for.
      dtype: compute dtype of the convolutions.
    """

    patch_hop: int = 48
    scores: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, mel_btf, num_frames_b, train: bool = False):
        """Embeds clips; frames beyond ``num_frames_b`` count as silence and never matter.

        Args:
          mel_btf: [b, t, 64] log-mel of the 'yamnet' front end (100 frames a second).
          num_frames_b: int [b], valid frames.
          train: without effect; the encoder interface has it.

        Returns:
          'pooled' float32 [b, 1024], mean embedding of a clip's patches, and 'frames' float32
          [b, p, 1024], their embeddings, with ``scores`` 1545 features each; 'frame_mask' bool
          [b, p]; 'logits' float32 [b, p, 521];
          'patches' [b, p, 96, 64], what the network sees; 'layer1' .. 'layer14_pointwise'
          [b * p, h, w, c], every layer's output.

        Raises:
          ValueError: when mel_btf has not 64 bins.
        """
        del train
        if mel_btf.shape[-1] != MEL_BINS:
            raise ValueError(f'YamNet takes {MEL_BINS} mel bins, not {mel_btf.shape[-1]}.')
        outputs = {'patches': self._patches(mel_btf, num_frames_b)}
        b, p = outputs['patches'].shape[:2]
        x = outputs['patches'].reshape(b * p, PATCH_FRAMES, MEL_BINS, 1).astype(self.dtype)
        x = outputs['layer1'] = _Conv('full', STEM_WIDTH, 2, self.dtype, name='layer1')(x)
        for i, (stride, width) in enumerate(BLOCKS, start=2):
            name = f'layer{i}'
            depthwise = _Conv(
                'depthwise', x.shape[-1], stride, self.dtype, name=name + '_depthwise'
            )
            pointwise = _Conv('pointwise', width, 1, self.dtype, name=name + '_pointwise')
            x = outputs[name + '_depthwise'] = depthwise(x)
            x = outputs[name + '_pointwise'] = pointwise(x)
        frames = jnp.mean(x.astype(jnp.float32), axis=(1, 2)).reshape(b, p, -1)
        mask = windows.window_mask(num_frames_b, p, PATCH_FRAMES, self.patch_hop)
        logits = Dense(NUM_CLASSES, name='classifier')(frames)
        if self.scores:
            frames = jnp.concatenate([frames, jax.nn.sigmoid(logits)], axis=-1)
        pooled = windows.masked_mean(frames, mask)
        return outputs | {'frames': frames, 'frame_mask': mask, 'logits': logits, 'pooled': pooled}

    def num_tokens(self, num_frames):
        """How many of 'frames' are a clip's own: an int or an array."""
        return windows.num_windows(num_frames, PATCH_FRAMES, self.patch_hop)

    def _patches(self, mel_btf, num_frames_b):
        count = windows.num_windows(mel_btf.shape[1], PATCH_FRAMES, self.patch_hop)
        length = PATCH_FRAMES + (count - 1) * self.patch_hop
        mel_btf = windows.fill_padding(mel_btf, num_frames_b, length, SILENCE)
        starts = jnp.arange(count)[:, None] * self.patch_hop
        return mel_btf[:, starts + jnp.arange(PATCH_FRAMES)]
