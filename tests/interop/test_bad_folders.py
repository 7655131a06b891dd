"""Folders that are damaged or of something else: the error names the file and the key."""

import json
import shutil
import struct

import numpy as np
import pytest
import small_models
from safetensors.numpy import load_file, save_file

import alm_jax
from alm_jax.config import ConfigError

INDEX = 'model.safetensors.index.json'
WEIGHTS = 'model.safetensors'
UP = 'model.layers.1.mlp.up_proj.weight'


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """'whole' and 'shards' of one llama."""
    parent = tmp_path_factory.mktemp('good')
    small_models.llama(parent / 'whole')
    small_models.llama(parent / 'shards', shards=True)
    return parent


def rewritten(folder, change):
    tensors = dict(load_file(folder / WEIGHTS))
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {'format': 'pt'})


def edited(folder, name, **values):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **values}))


def header(folder, change=lambda header: None, length=None):
    """The same data under a header that ``change`` edits, or that claims another length."""
    data = (folder / WEIGHTS).read_bytes()
    (size,) = struct.unpack('<Q', data[:8])
    content = json.loads(data[8 : 8 + size])
    change(content)
    text = json.dumps(content).encode()
    (folder / WEIGHTS).write_bytes(struct.pack('<Q', length or len(text)) + text + data[8 + size :])


def beyond_the_end(content):
    content[UP]['shape'][0] *= 1000
    content[UP]['data_offsets'][1] += 999 * 48 * 32 * 4


def wrong_size(content):
    content[UP]['shape'][0] += 1


def weight_map(folder, change):
    content = json.loads((folder / INDEX).read_text())
    change(content['weight_map'])
    (folder / INDEX).write_text(json.dumps(content))


def cut(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


BAD = {  # name -> (which, what is done to it, what the message must name)
    'no JSON': ('whole', lambda f: (f / 'config.json').write_text('{'), ['config.json']),
    'a JSON list': (
        'whole',
        lambda f: (f / 'config.json').write_text('[]'),
        ['config.json', 'object'],
    ),
    'unknown architecture': (
        'whole',
        lambda f: edited(f, 'config.json', model_type='lama'),
        ['config.json', "'lama'", "Did you mean 'llama'?"],
    ),
    'wrong family': (
        'whole',
        lambda f: edited(f, 'config.json', model_type='bert'),
        [
            'BERT',
            'lm_head.weight: in the files',
            'embedding_norm/bias: in the model, not in the files',
        ],
    ),
    'no weights': ('whole', lambda f: (f / WEIGHTS).unlink(), [WEIGHTS, 'config.json']),
    'a pickle': (
        'whole',
        lambda f: (f / WEIGHTS).rename(f / 'pytorch_model.bin'),
        ['pytorch_model.bin', 'pickle'],
    ),
    'truncated': ('whole', cut, [WEIGHTS, 'cannot be read']),
    'empty': ('whole', lambda f: (f / WEIGHTS).write_bytes(b''), [WEIGHTS, 'cannot be read']),
    'header longer than the file': (
        'whole',
        lambda f: header(f, length=1 << 40),
        [WEIGHTS, 'cannot be read'],
    ),
    'tensor beyond the end': ('whole', lambda f: header(f, beyond_the_end), [WEIGHTS, UP]),
    'shape that is not its bytes': ('whole', lambda f: header(f, wrong_size), [WEIGHTS, UP]),
    'missing tensor': (
        'whole',
        lambda f: rewritten(f, lambda t: t.pop(UP)),
        ['layers/1/mlp/up/kernel: in the model, not in the files'],
    ),
    'extra tensor': (
        'whole',
        lambda f: rewritten(f, lambda t: t.update({'x.weight': np.zeros(2, np.float32)})),
        ['x.weight: in the files, not in the model'],
    ),
    'shape mismatch': (
        'whole',
        lambda f: rewritten(f, lambda t: t.update({UP: np.zeros((47, 32), np.float32)})),
        [WEIGHTS, UP, '(32, 47)', '(32, 48)', 'layers/1/mlp/up/kernel'],
    ),
    'another size in config.json': (
        'whole',
        lambda f: edited(f, 'config.json', intermediate_size=64),
        [WEIGHTS, 'model.layers.0.mlp.gate_proj.weight', '(32, 48)', '(32, 64)'],
    ),
    'missing shard': (
        'shards',
        lambda f: min(f.glob('model-0*')).unlink(),
        ['model-00001-of-', 'lacks 1 of its'],
    ),
    'truncated shard': (
        'shards',
        lambda f: max(f.glob('model-0*')).write_bytes(b'12345678'),
        ['model-0000', 'cannot be read'],
    ),
    'shard outside': (
        'shards',
        lambda f: weight_map(f, lambda m: m.update({UP: '../whole/model.safetensors'})),
        [INDEX, "'../whole/model.safetensors'", 'not in its folder'],
    ),
    'absolute shard': (
        'shards',
        lambda f: weight_map(f, lambda m: m.update({UP: '/etc/passwd'})),
        [INDEX, "'/etc/passwd'", 'not in its folder'],
    ),
    'shard that is no name': (
        'shards',
        lambda f: weight_map(f, lambda m: m.update({UP: 3})),
        [INDEX, UP, '3'],
    ),
    'index promises more': (
        'shards',
        lambda f: weight_map(f, lambda m: m.update({'x.weight': m[UP]})),
        [INDEX, 'x.weight', 'lacks'],
    ),
    'index without a map': (
        'shards',
        lambda f: (f / INDEX).write_text('{"metadata": {}}'),
        [INDEX, 'weight_map'],
    ),
    'index that is no JSON': ('shards', lambda f: (f / INDEX).write_text('{'), [INDEX]),
}


@pytest.mark.parametrize('name', BAD)
def test_the_message_names_the_file_and_the_key(good, tmp_path, name):
    which, damage, words = BAD[name]
    shutil.copytree(good / which, tmp_path / 'model')
    damage(tmp_path / 'model')
    with pytest.raises(ConfigError) as caught:
        alm_jax.load(tmp_path / 'model')
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert str(tmp_path / 'model') in message
