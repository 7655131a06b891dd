"""The one-off converter of .pt files, in torch's environment."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import alm_jax
from alm_jax.interop import from_torch, tensor_files

STATE = {
    'a.weight': torch.arange(6.0).reshape(2, 3).T,
    'a.bias': torch.tensor([1.5], dtype=torch.bfloat16),
    'count': torch.tensor(3),
    'empty': torch.zeros(0, 2),
    'flag': torch.tensor([True, False]),
}
PREFIXED = {f'module.{name}': tensor for name, tensor in STATE.items()}


def run(*words, **options):
    return subprocess.run(
        [sys.executable, '-m', 'alm_jax.interop.from_torch', *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    'content',
    [
        STATE,
        {'state_dict': PREFIXED, 'epoch': 3},
        {'model': {'state_dict': STATE}, 'optimizer': {'state': {0: torch.zeros(4)}}},
        {'model': STATE, 'cfg': {'width': 4, 'layers': [1, 2], 'callback': {3}}},
        {'state_dict': STATE, 'best': np.float64(0.5), 'args': argparse.Namespace(x=1)},
    ],
    ids=['plain', 'module', 'nested', 'cfg', 'scalars'],
)
def test_layouts(tmp_path, content):
    torch.save(content, tmp_path / 'x.pt')
    assert from_torch.main([str(tmp_path / 'x.pt'), str(tmp_path / 'x'), '--model_type=m']) == 0
    written = load_file(tmp_path / 'x' / 'model.safetensors')
    assert set(written) == set(STATE)
    for name, tensor in STATE.items():
        assert torch.equal(written[name], tensor), name
        assert written[name].dtype == tensor.dtype
    config = json.loads((tmp_path / 'x' / 'config.json').read_text())
    assert config == {
        'model_type': 'm',
        **({'width': 4, 'layers': [1, 2]} if 'cfg' in content else {}),
    }
    np.testing.assert_array_equal(
        tensor_files.TensorFiles(tmp_path / 'x')['a.weight'], STATE['a.weight'].numpy()
    )


def test_settings_and_old_files(tmp_path):
    torch.save(STATE, tmp_path / 'x.pt', _use_new_zipfile_serialization=False)
    words = [str(tmp_path / 'x.pt'), str(tmp_path / 'x'), '--model_type=m', '--set=layers=[2,2]']
    assert from_torch.main([*words, '--set=name=tiny']) == 0
    config = json.loads((tmp_path / 'x' / 'config.json').read_text())
    assert config == {'model_type': 'm', 'layers': [2, 2], 'name': 'tiny'}


def test_mistakes_are_one_line(tmp_path, capsys):
    torch.save({'hook': os.getcwd, 'state_dict': STATE}, tmp_path / 'code.pt')
    torch.save({'epoch': 3}, tmp_path / 'none.pt')
    torch.save({'fft': torch.zeros(2, dtype=torch.complex64)}, tmp_path / 'complex.pt')
    torch.save(STATE, tmp_path / 'x.pt')
    (tmp_path / 'torn.pt').write_bytes((tmp_path / 'x.pt').read_bytes()[:500])
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'file').touch()
    cases = {
        ('code.pt', 'y'): 'weights_only=True',
        ('none.pt', 'y'): 'holds no tensors, only a mapping of epoch',
        ('complex.pt', 'y'): 'fft is torch.complex64, which is not written',
        ('torn.pt', 'y'): 'torn.pt is not read by torch',
        ('nothing.pt', 'y'): 'nothing.pt does not exist',
        ('x.pt', 'full'): 'full is not an empty folder',
        ('x.pt', 'y', '--set=layers'): 'is not key=value',
        ('x.pt', 'y', '--model_type=laion_clap'): 'is it another architecture?',
    }
    for (src, dst, *more), words in cases.items():
        code = from_torch.main([str(tmp_path / src), str(tmp_path / dst), '--model_type=m', *more])
        said = capsys.readouterr().err
        assert code == 2
        assert words in said
        assert said.count('\n') == 1, said
        assert not (tmp_path / 'y').exists()
    assert not list(tmp_path.glob('.partial*'))


def test_without_torch_and_without_alm_jax(tmp_path):
    """A None in sys.modules makes an import fail; the file alone runs where only torch is."""
    (tmp_path / 'sitecustomize.py').write_text("import sys; sys.modules['torch'] = None\n")
    root = pathlib.Path(alm_jax.__file__).parents[1]
    path = os.pathsep.join([str(tmp_path), str(root)])
    done = run('x.pt', 'y', '--model_type=m', env={**os.environ, 'PYTHONPATH': path})
    assert done.returncode == 2
    assert 'error: torch cannot be imported' in done.stderr
    assert done.stderr.count('\n') == 1
    block = ('jax', 'flax', 'safetensors', 'absl', 'ml_collections')
    (tmp_path / 'sitecustomize.py').write_text(
        f'import sys; sys.modules.update(dict.fromkeys({block}))\n'
    )
    torch.save(STATE, tmp_path / 'x.pt')
    words = (tmp_path / 'x.pt', tmp_path / 'y', '--model_type=m')
    done = run(*words, env={**os.environ, 'PYTHONPATH': path})
    assert done.returncode == 0, done.stderr


def test_what_laion_clap_says_of_itself():
    tensors = {'audio_branch.patch_embed.proj.weight': torch.zeros(128, 1, 4, 4)}
    said = from_torch.described('laion_clap', tensors)
    assert said == {'amodel': 'HTSAT-base', 'tmodel': 'roberta', 'enable_fusion': False}
    tensors['audio_branch.patch_embed.fusion_model.local_att.0.weight'] = torch.zeros(1)
    assert from_torch.described('laion_clap', tensors)['enable_fusion']
