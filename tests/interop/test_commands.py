"""python -m alm_jax.interop on small checkpoints of every kind."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import parity
import pytest
import small_models
from safetensors.numpy import load_file, save_file

import alm_jax
from alm_jax.config import ConfigError
from alm_jax.interop import convert, diff, inspection, sources, tensor_files
from alm_jax.interop.name_tables import from_yamnet
from alm_jax.interop.savedmodel import INDEX, SHARD, read_saved_model
from alm_jax.training.param_names import flatten_canonical


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """'whole' and 'shards' of one llama, 'changed' in one kernel, and a .gguf."""
    parent = tmp_path_factory.mktemp('models')
    small_models.llama(parent / 'whole')
    small_models.llama(parent / 'shards', shards=True)
    small_models.gguf_llama(parent / 'tiny.gguf')
    shutil.copytree(parent / 'whole', parent / 'changed')
    file = parent / 'changed' / 'model.safetensors'
    tensors = {name: tensor.copy() for name, tensor in load_file(file).items()}
    tensors['model.layers.1.mlp.up_proj.weight'][0, 0] += 0.125
    save_file(tensors, file, {'format': 'pt'})
    return parent


@pytest.fixture(scope='module')
def saved_model(wheel, tmp_path_factory):
    """YAMNet's SavedModel, as the wheel has it."""
    folder = tmp_path_factory.mktemp('saved') / 'yamnet'
    (folder / 'variables').mkdir(parents=True)
    (folder / 'variables' / INDEX).write_bytes(wheel('yamnet', 'index'))
    (folder / 'variables' / SHARD).write_bytes(wheel('yamnet', 'shard'))
    return folder


def compared(a, b, **options):
    return diff.diff(sources.open_source(a), sources.open_source(b), **options)


def rows(path):
    """Table rows of inspect: name -> the other columns."""
    text = inspection.table(sources.open_source(path))
    lines = text.partition('\ntensor ')[2].partition('\n\n')[0].splitlines()[1:]
    return text, {line.split('  ')[0]: line.split()[1:] for line in lines}


def test_inspect_a_folder_and_its_shards(folders):
    text, table = rows(folders / 'whole')
    assert 'family     Llama (model_type llama)\n' in text
    assert 'reference  transformers LlamaForCausalLM\n' in text
    assert 'hidden_size 32, intermediate_size 48' in text
    assert 'all names match: 30 arrays, 27,104 values here' in text
    assert table['model.layers.1.mlp.up_proj.weight'] == (
        ['48', 'x', '32', 'F32', '6,144', 'layers/1/mlp/up/kernel']
    )
    assert rows(folders / 'shards')[0].partition('\n')[2] == text.partition('\n')[2]


def test_inspect_lists_what_does_not_match(folders, tmp_path):
    shutil.copytree(folders / 'whole', tmp_path / 'x')
    tensors = load_file(tmp_path / 'x' / 'model.safetensors')
    tensors['model.norms.weight'] = tensors.pop('model.norm.weight')
    save_file(tensors, tmp_path / 'x' / 'model.safetensors')
    text, table = rows(tmp_path / 'x')
    assert table['model.norms.weight'][-2:] == ['NO', 'PLACE']
    assert text.endswith(
        '1 in the files, not in the model:\n  model.norms.weight\n'
        '1 in the model, not in the files:\n  norm/scale\n'
    )
    with pytest.raises(ConfigError, match=r'no complete Llama: 2 tensors.*model\.norms\.weight'):
        convert.convert(tmp_path / 'x', tmp_path / 'y')
    assert not (tmp_path / 'y').exists()
    report = compared(folders / 'whole', tmp_path / 'x', run=False)
    assert (report.only_a, report.only_b) == (['model.norm.weight'], ['model.norms.weight'])


def test_inspect_lists_what_has_another_shape(folders, tmp_path):
    shutil.copytree(folders / 'whole', tmp_path / 'x')
    config = (tmp_path / 'x' / 'config.json').read_text()
    wider = config.replace('"vocab_size": 60', '"vocab_size": 61')
    (tmp_path / 'x' / 'config.json').write_text(wider)
    text, _ = rows(tmp_path / 'x')
    assert text.endswith(
        '2 of another shape than config.json says:\n'
        '  model.embed_tokens.weight (as token_embedding/embedding) is (60, 32); the model has '
        '(61, 32)\n'
        '  lm_head.weight (as lm_head/kernel) is (32, 60); the model has (32, 61)\n'
    )
    with pytest.raises(ConfigError, match=r'2 tensors do not match.*\(61, 32\)'):
        convert.convert(tmp_path / 'x', tmp_path / 'y')


def test_inspect_a_gguf_a_run_and_a_saved_model(folders, tiny_run, saved_model):
    text, table = rows(folders / 'tiny.gguf')
    assert 'kind       GGUF file' in text
    assert table['blk.0.ffn_up.weight'][-1] == 'layers/0/mlp/up/kernel'
    text, table = rows(tiny_run)
    assert 'kind       run of alm_jax' in text
    assert 'audio      ' in text
    assert table['params/logit_scale'] == ['scalar', 'float32', '4', 'logit_scale']
    text, table = rows(saved_model)
    assert 'family     YAMNet' in text
    assert 'all names match' in text


def test_diff_finds_the_first_divergence(folders):
    assert compared(folders / 'whole', folders / 'shards', run=False).equal
    report = compared(folders / 'whole', folders / 'changed')
    assert [one.name for one in report.tensors if one.exceeds(0)] == ['layers/1/mlp/up/kernel']
    assert max(one.largest for one in report.tensors) == pytest.approx(0.125, rel=1e-6)
    assert [one.name for one in report.intermediates][1:] == (
        ['embeddings', 'hidden/0', 'hidden/1', 'hidden/2', 'tokens', 'logits']
    )
    assert report.first.name == 'hidden/1'
    assert not report.equal
    assert dataclasses.replace(report, tolerance=1.0).equal


def test_diff_of_shapes_dtypes_and_nan():
    one = np.ones((2, 3), np.float32)
    assert diff.compare('x', one, one).relative == 0
    assert 'shape (2, 3) and (3, 2)' in diff.compare('x', one, one.T).note
    broken = one.copy()
    broken[0, 0] = np.nan
    assert diff.compare('x', broken, broken).largest == 0
    assert diff.compare('x', one, broken).exceeds(10)
    assert diff.compare('x', one, 0 * one).exceeds(10)
    assert diff.compare('x', one, one, 'float32 and bfloat16').exceeds(10)


def test_diff_of_a_run(tiny_run):
    report = compared(tiny_run / 'checkpoints' / '1', tiny_run / 'checkpoints' / '2')
    assert report.first.name.startswith('audio/')
    assert {'audio_embedding', 'text_embedding'} <= {one.name for one in report.intermediates}
    assert any(one.name.startswith('text/hidden/') for one in report.intermediates)
    assert compared(tiny_run, tiny_run / 'checkpoints' / '2', run=False).equal


def test_convert_a_gguf(folders, tmp_path):
    convert.convert(folders / 'tiny.gguf', tmp_path / 'made')
    assert compared(folders / 'tiny.gguf', tmp_path / 'made').equal
    assert alm_jax.load(tmp_path / 'made').generate('!', max_tokens=2)
    with pytest.raises(ConfigError, match='made is not an empty folder'):
        convert.convert(folders / 'tiny.gguf', tmp_path / 'made')
    assert [entry.name for entry in tmp_path.iterdir()] == ['made']


def test_convert_shards_keeps_bits_and_companions(folders, tmp_path):
    (tmp_path / 'made').mkdir()
    convert.convert(folders / 'shards', tmp_path / 'made')
    assert sorted(p.name for p in (tmp_path / 'made').iterdir()) == (
        ['config.json', 'generation_config.json', 'model.safetensors']
    )
    before = tensor_files.TensorFiles(folders / 'shards')
    for name, tensor in load_file(tmp_path / 'made' / 'model.safetensors').items():
        np.testing.assert_array_equal(before[name], tensor)


def test_convert_yamnet(saved_model, tmp_path, recordings):
    convert.convert(saved_model, tmp_path / 'made')
    model = alm_jax.load(tmp_path / 'made')
    ours = flatten_canonical({**model.params, **model.extra})
    theirs = from_yamnet(read_saved_model(saved_model))
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    noise = np.random.default_rng(0).normal(0, 0.1, 20_000)
    outputs = model.encode([noise, noise[:15_600]], sampling_rate=16_000)
    assert outputs['logits'].shape == (2, 2, 521)
    assert outputs['frame_mask'].tolist() == [[True, True], [True, False]]
    parity.check_round_trip(model, tmp_path / 'again')


def test_convert_refuses_what_it_does_not_know(tmp_path, tiny_run):
    folder = tmp_path / 'bart'
    tensor_files.write(folder, {'x': np.zeros(1)})
    (folder / 'config.json').write_text('{"model_type": "bart"}')
    with pytest.raises(ConfigError, match=r"no known architecture \(model_type 'bart'\)"):
        convert.convert(folder, tmp_path / 'y')
    assert 'unknown here (model_type bart)' in inspection.table(sources.open_source(folder))
    with pytest.raises(ConfigError, match=r'a ClapModel is model\.audio htsat'):
        convert.convert(tiny_run, tmp_path / 'y')
    with pytest.raises(ConfigError, match='no checkpoint that is read here'):
        sources.open_source(folder / 'config.json')
    with pytest.raises(ConfigError, match='does not exist'):
        sources.open_source(tmp_path / 'nothing')


@pytest.mark.parametrize(
    ('words', 'code', 'says'),
    [
        (['inspect', 'whole'], 0, 'all names match'),
        (['diff', 'whole', 'changed', '--nointermediates'], 1, 'different'),
        (['inspect', 'hole'], 2, 'hole does not exist'),
    ],
)
def test_the_program(folders, words, code, says):
    done = subprocess.run(
        [sys.executable, '-m', 'alm_jax.interop', *words],
        cwd=folders,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'PYTHONPATH': str(pathlib.Path(alm_jax.__file__).parents[1])},
    )
    assert done.returncode == code
    assert says in done.stdout + done.stderr
    assert code != 2 or (done.stderr.count('\n') == 1 and not done.stdout)
