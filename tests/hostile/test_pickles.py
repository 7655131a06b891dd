"""Pickles that would make a file, handed in as whatever is read: none is run, each is named."""

import io
import json
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

import alm_jax
from alm_jax.adapters import files as adapters
from alm_jax.audio import decode
from alm_jax.config import ConfigError, from_json
from alm_jax.data import mapped
from alm_jax.data.catalog.files import Files
from alm_jax.data.hygiene import blocklists, pictures
from alm_jax.data.inputs import parquet, tars
from alm_jax.interop import ctranslate2_folder, from_torch, init_from, savedmodel, sources
from alm_jax.interop.gguf import GgufFile
from alm_jax.interop.tensor_files import TensorFiles
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import checkpoint

NAMED = (ConfigError, decode.AudioError, from_torch.Unreadable)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), 'w')


@pytest.fixture
def marker(tmp_path):
    """The file that must not come to be; that each payload would make it is shown first."""
    marker = tmp_path / 'executed'
    pickle.loads(pickle.dumps(Payload(marker))).close()
    marker.unlink()
    return marker


def put(file: pathlib.Path, content: bytes) -> pathlib.Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def as_array(payload: Payload) -> bytes:
    """An .npy of dtype object."""
    file = io.BytesIO()
    np.save(file, np.array([payload, None], dtype=object), allow_pickle=True)
    return file.getvalue()


def as_torch(payload: Payload) -> bytes:
    """What torch.save writes: a zip with data.pkl."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('archive/data.pkl', pickle.dumps({'state_dict': payload}, 2))
        archive.writestr('archive/version', '3\n')
        archive.writestr('archive/byteorder', 'little')
    return file.getvalue()


def in_tar(file: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, 'w') as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def table(kind, read):
    """A table of a dataset's distribution."""
    return lambda folder, content: read(Files(put(folder / f't.{kind}', content).parent))


def of_a_run(folder, content, name):
    """A run whose config, or whose checkpoint's manifest, is a pickle."""
    put(folder / 'config.json', b'{"model": {}, "front_end": {}}')
    put(folder / name, content)
    return alm_jax.load(folder)


def of_a_model(folder, content, name):
    put(folder / 'config.json', json.dumps({'model_type': 'llama'}).encode())
    put(folder / name, content)
    return alm_jax.load(folder)


def index_beside(folder, content):
    """The index of a tar is made again when that beside it is none."""
    tar = in_tar(folder / 'a.tar', {'x.wav': content, 'x.json': b'{"caption": "a"}'})
    put(folder / 'a.tar.index.arrow', content)
    return tars.open_tars(str(tar), folder / 'place')


def converted(folder, content, name):
    (folder / 'dst').mkdir(parents=True)
    return from_torch.convert(str(put(folder / name, content)), str(folder / 'dst'), 'x', {})


def pictures_of(folder, content):
    """The kept fingerprints of a source's records."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name in ('frames', 'patches', 'owner', 'frame', 'left_out'):
            archive.writestr(f'{name}.npy', content)
    put(pictures._patches_path(folder, 0), file.getvalue())
    return pictures.Pictures(folder, 1)


ANY = {  # name -> reads a file of this content
    'table.pkl': table('pkl', lambda files: files.table('t.pkl')),
    'table.csv': table('csv', lambda files: list(files.csv('t.csv', required=['x']))),
    'table.json': table('json', lambda files: files.json('t.json')),
    'table.jsonl': table('jsonl', lambda files: list(files.jsonl('t.jsonl'))),
    'rows.json': table('json', lambda files: list(files.json_rows('t.json'))),
    'table.yaml': table('yaml', lambda files: files.yaml('t.yaml')),
    'table.parquet': table('parquet', lambda files: list(files.parquet('*.parquet'))),
    'archive.zip': table('zip', lambda files: files.audio('x.wav')),
    'archive.tar': table('tar', lambda files: files.audio('x.wav')),
    'archive.tar.gz': table('tar.gz', lambda files: files.audio('x.wav')),
    'data.parquet': lambda f, c: parquet.open_parquet(str(put(f / 'a.parquet', c)), f / 'place'),
    'shard.tar': lambda f, c: tars.open_tars(str(put(f / 'a.tar', c)), f / 'place'),
    'members of a tar': lambda f, c: tars.open_tars(
        str(in_tar(f / 'a.tar', {f'x.{end}': c for end in ('wav', 'json', 'pyd', 'pkl', 'cls')})),
        f / 'place',
    ),
    'index of a tar': index_beside,
    'sound.wav': lambda f, c: decode.decode(put(f / 'x.wav', c)),
    'array.npy': lambda f, c: mapped.Mapped(put(f / 'x.npy', c)),
    'arrays.npz': pictures_of,
    'blocklist.json': lambda f, c: blocklists.read(put(f / 'x.json', c)),
    'blocklist.txt': lambda f, c: blocklists.read(put(f / 'x.txt', c)),
    'config.json of a run': lambda f, c: of_a_run(f, c, 'config.json'),
    'manifest.json': lambda f, c: of_a_run(f, c, 'checkpoints/1/manifest.json'),
    'manifest of a checkpoint': lambda f, c: checkpoint.resolve(
        put(f / 'checkpoints/1/manifest.json', c).parent
    ),
    'config in memory': lambda f, c: from_json(c),
    'config.json of a model': lambda f, c: of_a_model(f, c, 'config.json'),
    'pytorch_model.bin': lambda f, c: of_a_model(f, c, 'pytorch_model.bin'),
    'model.safetensors': lambda f, c: of_a_model(f, c, 'model.safetensors'),
    'index of shards': lambda f, c: of_a_model(f, c, 'model.safetensors.index.json'),
    'a .pt alone': lambda f, c: alm_jax.load(put(f / 'x.pt', c)),
    'x.pt for torch': lambda f, c: converted(f, c, 'x.pt'),
    'x.ckpt': lambda f, c: sources.open_source(put(f / 'x.ckpt', c)),
    'x.safetensors': lambda f, c: TensorFiles(put(f / 'x.safetensors', c)),
    'init_from': lambda f, c: init_from._read(str(put(f / 'x.safetensors', c)), f),
    'x.gguf': lambda f, c: GgufFile(put(f / 'x.gguf', c)),
    'a .gguf to load': lambda f, c: alm_jax.load(put(f / 'x.gguf', c)),
    'model.bin of CTranslate2': lambda f, c: (
        [
            put(f / name, content)
            for name, content in (
                ('model.bin', c),
                ('config.json', b'{}'),
                ('tokenizer.json', b'{}'),
            )
        ]
        and ctranslate2_folder.read(f)
    ),
    'SavedModel': lambda f, c: (
        [put(f / 'variables' / name, c) for name in savedmodel_files()]
        and savedmodel.read_saved_model(f)
    ),
    'tokenizer.json': lambda f, c: Tokenizer.load(put(f / 'tokenizer.json', c)),
    'tokenizer of a language model': lambda f, c: LanguageTokenizer.load(
        put(f / 'tokenizer.json', c)
    ),
    'adapter': lambda f, c: (
        put(f / 'adapter.safetensors', c)
        and put(f / 'adapter.json', b'{"kind": "lora"}')
        and adapters.load(f)
    ),
    'adapter.json': lambda f, c: put(f / 'adapter.json', c) and adapters.load(f),
}


# What is well formed, and read as the text or the archive that it is too.
NO_MISTAKE = {
    ('archive.zip', 'torch'),
    ('table.yaml', 'old pickle'),
    ('blocklist.txt', 'old pickle'),
}


def savedmodel_files():
    return savedmodel.INDEX, savedmodel.SHARD


@pytest.mark.parametrize('name', ANY)
def test_none_is_run_and_each_is_an_error_that_names_it(name, marker, tmp_path):
    payload = Payload(marker)
    forms = {
        'pickle': pickle.dumps(payload),
        'old pickle': pickle.dumps({'a': [payload]}, 0),
        'array of objects': as_array(payload),
        'torch': as_torch(payload),
    }
    for form, content in forms.items():
        folder = tmp_path / form.replace(' ', '_')
        (folder / 'place').mkdir(parents=True)
        if (name, form) in NO_MISTAKE:
            ANY[name](folder, content)
        else:
            with pytest.raises(NAMED) as caught:
                ANY[name](folder, content)
            assert len(str(caught.value)) > 10
        assert not marker.exists(), form
