"""JSON, YAML and Python literals that came from anywhere: values or named errors, never code."""

import gc
import io
import json
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alm_jax
from alm_jax import config as config_lib
from alm_jax import json_text
from alm_jax.config import ConfigError
from alm_jax.data.catalog import plain_tables, plain_yaml, rows
from alm_jax.data.hygiene import blocklists
from alm_jax.data.inputs import fields
from alm_jax.interop import families, names, tensor_files
from alm_jax.interop.family import MOST_LAYERS
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.training import checkpoint, manifest, optimizer, state
from alm_jax.training.param_names import flatten_canonical

DEEP = {  # name -> JSON nested so deeply
    'lists': b'[' * 500_000,
    'closed lists': b'[' * 500_000 + b']' * 500_000,
    'objects': b'{"a":' * 200_000 + b'1' + b'}' * 200_000,
    # What the parser takes, but not what walks over it with some frames on the stack already.
    'just parsed': b'{"a":' * 900 + b'1' + b'}' * 900,
}


def table_row(content):
    return list(rows.read_jsonl(io.BytesIO(content), 'x.json'))


def put(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


JSON = {  # name -> reads JSON from a folder it is put into
    'a run': lambda f, c: alm_jax.load(put(f, 'config.json', c)),
    'a config': lambda f, c: config_lib.from_json(c),
    'a manifest': lambda f, c: checkpoint.resolve(put(f, 'manifest.json', c)),
    'shards': lambda f, c: tensor_files.TensorFiles(put(f, tensor_files.INDEX, c)),
    'a row': lambda f, c: table_row(c),
    'a value': lambda f, c: rows.json_value(io.BytesIO(c), 'x.json'),
    'an element': lambda f, c: list(rows.read_json_rows(io.BytesIO(b'[' + c + b']'), 'x.json')),
    'a member of a tar': lambda f, c: fields.load_json(c, 'x.json'),
    'a blocklist': lambda f, c: blocklists.read(put(f, 'x.json', c) / 'x.json'),
    'a tokenizer': lambda f, c: LanguageTokenizer({'tokenizer.json': c}, 'x.json'),
}


@pytest.mark.parametrize('name', JSON)
@pytest.mark.parametrize('depth', DEEP)
def test_deep_json_is_a_named_error(tmp_path, name, depth):
    with pytest.raises(ConfigError) as caught:
        JSON[name](tmp_path, DEEP[depth])
    assert 'json' in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_json_within_bounds_is_what_json_says():
    value = {'a': [1, 2.5, None, True, 'é[{'], 'b': {'c': ['['] * 500}}
    for text in (json.dumps(value), json.dumps(value).encode(), json.dumps(value, indent=1)):
        assert json_text.parse(text, 'x.json') == json.loads(text)
    deepest = '[' * json_text.DEEPEST + ']' * json_text.DEEPEST
    assert json_text.parse(f'[{deepest[1:-1]}]', 'x.json') == json.loads(deepest)
    with pytest.raises(ConfigError, match='nested deeper than 100'):
        json_text.parse(f'[{deepest}]', 'x.json')
    assert json_text.parse('{"a": 1, "a": 2}', 'x.json') == {'a': 2}
    with pytest.raises(ConfigError, match=r"x\.json: not JSON \('a' stands there twice\)"):
        json_text.parse('{"b": {"a": 1, "a": 2}}', 'x.json', unique=True)


CONFIGS = [
    '[]', '3', '"x"', '', '\0', 'NaN', '{"a.b": 1}', '{"items": 1}', '{"__class__": 1}',
    '{"data": 5}', '{"data": {"train": 5}}', '{"batch_size": "x"}', '{"batch_size": NaN}',
    '{"steps": 1e999}', '{"": 1}', '{"keys": {"items": 3}}', '{"model": {"audio": {"a.b": 3}}}',
    '{"optimizer": []}', '{"profile": [[1], [2]]}', '{"py/object": "os.system"}',
    '{"seed": ' + '9' * 5000 + '}', '{"name": 3}', '{"data": {"__reduce__": ["os.system", "x"]}}',
]  # fmt: skip


@pytest.mark.parametrize('text', CONFIGS, ids=lambda text: text[:30])
def test_a_config_that_is_none_is_an_error_that_names_it(text):
    with pytest.raises(ConfigError, match='config'):
        config_lib.from_json(text)


def test_texts_of_a_config_stay_texts(tmp_path):
    marker = tmp_path / 'executed'
    config = config_lib.base()
    config.name = f'$(touch {marker}) `touch {marker}` {{{{ cycler.__init__ }}}} %(x)s'
    config.data.train = ({'name': f'!!python/object/apply:os.system ["touch {marker}"]'},)
    again = config_lib.from_json(config_lib.to_json(config))
    assert again.name == config.name
    assert again.data.train[0]['name'] == config.data.train[0]['name']
    assert not marker.exists()


EVIL = """
import pathlib
pathlib.Path(__file__).with_name('executed').touch()
class Evil: pass
"""


def test_code_beside_a_model_is_not_run(tmp_path):
    """auto_map and the like name Python files of the folder, which others run when asked to."""
    auto_map = {
        name: f'evil.{name}'
        for name in ('AutoConfig', 'AutoModel', 'AutoTokenizer', 'AutoProcessor')
    }
    config = {
        'model_type': 'gpt2', 'n_embd': 8, 'n_layer': 1, 'n_head': 2, 'n_positions': 8,
        'vocab_size': 5, 'auto_map': auto_map, 'trust_remote_code': True,
        'custom_pipelines': {'x': {'impl': 'evil.Evil'}}, '_attn_implementation': 'evil/kernel',
    }  # fmt: skip
    family = families.find('gpt2', 'x')
    _, shapes = family.shapes(config)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    arrays = names.their_arrays(family.table(config), flatten_canonical(zeros))
    tensor_files.write(tmp_path, arrays)
    for name in ('config', 'tokenizer_config', 'preprocessor_config', 'processor_config'):
        put(tmp_path, f'{name}.json', json.dumps({**config, 'tokenizer_class': 'Evil'}).encode())
    for name in ('evil', 'modeling_gpt2', 'configuration_gpt2', 'tokenization_evil', '__init__'):
        put(tmp_path, f'{name}.py', EVIL.encode())
    model = alm_jax.load(tmp_path)
    assert model.config['auto_map'] == auto_map
    assert not (tmp_path / 'executed').exists()
    put(tmp_path, 'config.json', json.dumps({**config, 'model_type': 'evil'}).encode())
    with pytest.raises(ConfigError, match="'evil'"):
        alm_jax.load(tmp_path)
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize(
    'change',
    [
        {'n_layer': MOST_LAYERS + 1}, {'n_layer': 10**9}, {'n_embd': 'wide'}, {'n_head': 0},
        {'n_embd': -8}, {'n_embd': 10**9}, {'n_embd': 1 << 62}, {'n_head': 1e300},
        {'n_inner': [1 << 40]}, {'n_positions': (1 << 24) + 1}, {'vocab_size': [5]},
        {'rope_parameters': {'factor': 1e30}}, {'n_positions': None}, {'n_head': 3},
        {'layer_norm_epsilon': {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_of_an_impossible_model_is_a_named_error(tmp_path, change):
    config = {'model_type': 'gpt2', 'n_embd': 8, 'n_layer': 1, 'n_head': 2, 'n_positions': 8}
    put(tmp_path, 'config.json', json.dumps({**config, 'vocab_size': 5, **change}).encode())
    tensor_files.write(tmp_path, {'x': np.zeros(2, np.float32)})
    with pytest.raises(ConfigError) as caught:
        alm_jax.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    'name', ['../../secret', '/etc/passwd', 'a/../../secret', '..', 'params/../../../secret']
)
def test_a_manifest_names_files_of_its_checkpoint_alone(tmp_path, name):
    """Not even their hashes are told: what is outside is not opened."""
    (tmp_path / 'secret').write_bytes(b'secret')
    entry = {'bytes': 6, 'sha256': '0' * 64}
    content = {'step': 1, 'files': {name: entry}, 'tree': {}}
    folder = put(tmp_path / 'checkpoints/1', 'manifest.json', json.dumps(content).encode())
    with pytest.raises(checkpoint.CheckpointError, match=r'names .* which is not in it'):
        checkpoint.resolve(folder)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """The folder of a checkpoint of two arrays."""
    workdir = tmp_path_factory.mktemp('run')
    config = config_lib.base()
    config.optimizer.no_decay = ()
    params = {'a': {'kernel': jnp.ones((4, 3)), 'bias': jnp.ones(3)}}
    with checkpoint.Checkpointer(workdir, keep=1) as checkpointer:
        run = state.create(params, {}, optimizer.make_optimizer(config, params))
        checkpointer.save(run.replace(step=run.step + 1))
    return workdir / 'checkpoints/1'


TREES = {
    'huge': {'params/a/kernel': ['float32', [1 << 40, 1 << 20]]},
    'beyond 64 bits': {'params/a/kernel': ['float32', [1 << 62, 1 << 62]]},
    'negative': {'params/a/kernel': ['float32', [-4, 3]]},
    'objects': {'params/a/kernel': ['O', [4, 3]]},
    'no type': {'params/a/kernel': ['__import__', [4, 3]]},
    'no shape': {'params/a/kernel': ['float32', 'x']},
    'no pair': {'params/a/kernel': 'x'},
    'one more': {'params/b': ['float32', [4, 3]]},
    'one outside': {'params/../../../secret': ['float32', [4, 3]]},
    'an item more': {'../secret/b': ['float32', [4, 3]]},
}


# Orbax leaves reads that it had begun.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.filterwarnings('ignore:coroutine:RuntimeWarning')
@pytest.mark.parametrize('name', TREES)
def test_a_manifest_of_other_arrays_is_named(saved, tmp_path, name):
    """Its own hash does not help: whoever writes a manifest can write that too."""
    folder = tmp_path / 'checkpoints/1'
    shutil.copytree(saved, folder)
    content = json.loads((folder / 'manifest.json').read_text())
    content.pop(manifest.SHA256)
    content['tree'] |= TREES[name]
    content[manifest.SHA256] = manifest._own_sha256(content)
    (folder / 'manifest.json').write_text(json.dumps(content))
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.load_params(checkpoint.resolve(folder))
    message = str(caught.value)
    del caught
    gc.collect()
    assert str(folder) in message


YAML_MERGES = '\n'.join(
    f'b{i}: &b{i} {{<<: [*b{i - 1}, *b{i - 1}]}}' if i else 'b0: &b0 {k: v}' for i in range(40)
)
YAML = {
    'an object': ('!!python/object/apply:os.system ["touch {}"]', 'constructor'),
    'a name': ('!!python/name:os.system', 'constructor'),
    'a module': ('!!python/module:os', 'constructor'),
    'deep lists': ('[' * 500_000, 'x.yaml'),
    'deep blocks': ('\n'.join(' ' * n + 'a:' for n in range(3000)), 'x.yaml'),
    'merges of merges': (YAML_MERGES, 'merge keys'),
    'no text': ('\x01', 'x.yaml'),
    'an alias of nothing': ('a: *b', 'undefined alias'),
}


@pytest.mark.parametrize('name', YAML)
def test_yaml_is_plain_values_or_a_named_error(tmp_path, name):
    text, word = YAML[name]
    with pytest.raises(ConfigError) as caught:
        plain_yaml.parse(text.replace('{}', str(tmp_path / 'executed')).encode(), 'x.yaml')
    assert word in str(caught.value)
    assert 'x.yaml' in str(caught.value)
    assert not (tmp_path / 'executed').exists()


def test_plain_yaml_is_read():
    text = b'files:\n- filename: a.wav\n  tags: &t [dog, 3, 2.5, null, true]\n- tags: *t\n'
    tags = ['dog', 3, 2.5, None, True]
    assert plain_yaml.parse(text, 'x') == {
        'files': [{'filename': 'a.wav', 'tags': tags}, {'tags': tags}]
    }


LITERALS = [
    '[' * 100_000, '-' * 100_000 + '1', '(' * 100_000, '{' * 50_000, '1+' * 100_000 + '1',
    'not ' * 50_000 + '1', "['a'" + ".b" * 50_000 + ']', "[f'{1}']", '[lambda: 1]', '[1]',
    "['a' + 'b']", "__import__('os')", "[b'a']", "['a']*9999999", '[' + "'a'," * 400_000 + ']',
    "['a", '["a\', 1]', "['a\\", '9' * 5000,
]  # fmt: skip


@pytest.mark.parametrize('text', LITERALS, ids=lambda text: text[:12])
def test_a_list_in_a_cell_is_texts_or_a_named_error(text):
    """On a small stack too, as a thread has: what the parser recurses on never gets there."""
    row = rows.Row({'tags': text}, 'x.csv, row 3')
    found = []

    def listed():
        try:
            row.listed('tags')
        except ConfigError as error:
            found.append(str(error))

    size = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=listed)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
    assert found[0].startswith("x.csv, row 3: 'tags' is")
    assert len(found[0]) < 500
    with pytest.raises(ConfigError, match=r'x\.pkl'):
        plain_tables.parse(b'S' + text.encode() + b'\n.', 'x.pkl')


def test_a_table_of_a_byte_a_dictionary_is_bounded(monkeypatch):
    monkeypatch.setattr(plain_tables, 'MOST_OPERATIONS', 1000)
    with pytest.raises(ConfigError, match=r'x\.pkl: it has more than 1000 operations'):
        plain_tables.parse(b'(' + b'}' * 1000 + b'l.', 'x.pkl')
    assert len(plain_tables.parse(b'(' + b'}' * 900 + b'l.', 'x.pkl')) == 900


@pytest.mark.parametrize(
    'value', [[], ['dog'], ["it's", 'say "x"', 'both \' and "'], ['é', '\n', '\\', ''], ['a, b']]
)
def test_lists_that_python_wrote_are_read(value):
    row = rows.Row({'tags': str(value)}, 'x')
    assert row.listed('tags') == [text.strip() for text in value if text.strip()]
