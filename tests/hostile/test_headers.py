"""Headers of weight files that lie: each is refused before anything of the claimed size is made."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save_file

from alm_jax.config import ConfigError
from alm_jax.interop import (
    ctranslate2,
    ctranslate2_folder,
    gguf,
    gguf_tokenizer,
    safetensors_header,
    savedmodel,
    tekken,
)
from alm_jax.interop.tensor_files import INDEX, TensorFiles

MEMORY = 24 << 20  # bytes that a refusal may take


def refused(call, *words):
    """The message of the error, which names ``words``; the memory it took is bounded."""
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError) as caught:
            call()
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    return str(caught.value)


def entry(dtype='I8', shape=(4,), start=0, end=4):
    return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [start, end]}


def stored(header, data=bytes(4), length=None):
    """A safetensors file of this header: an object, or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + data


def two(first, second):
    return {'a': entry(end=first[1], start=first[0]), 'b': entry(start=second[0], end=second[1])}


SAFETENSORS = {  # name -> (content of the file, what the message names)
    'nothing': (b'', ['header of 0 bytes']),
    'less than a length': (b'1234', ['does not fit']),
    'longer than the file': (stored({}, length=1 << 20), ['header of 1048576 bytes']),
    '2**63': (stored({}, length=1 << 63), ['header of 9223372036854775808 bytes']),
    'all ones': (stored({}, length=(1 << 64) - 1), ['does not fit']),
    'no JSON': (stored(b'{"a": '), ['not JSON']),
    'not UTF-8': (stored(b'{"\xff": 1}'), ['not JSON']),
    'a list': (stored([]), ['expected an object']),
    'nested': (stored(b'{"a":' * 100_000), ['nested deeper']),
    'nested within reason': (stored(b'{"a":' * 200 + b'1' + b'}' * 200), ['nested deeper']),
    'a key twice': (
        stored(b'{"a":%b,"a":%b}' % (2 * (json.dumps(entry()).encode(),))),
        ["'a' stands there twice"],
    ),
    'a field twice': (
        stored(b'{"a":{"dtype":"I8","shape":[4],"shape":[2],"data_offsets":[0,4]}}'),
        ["'shape' stands there twice"],
    ),
    'no object': (stored({'a': 3}), ['a has not just']),
    'a field missing': (stored({'a': {'dtype': 'I8', 'shape': [4]}}), ['a has not just']),
    'a field more': (stored({'a': {**entry(), 'x': 1}}), ['a has not just']),
    'metadata': (stored({'__metadata__': 3, 'a': entry()}), ['__metadata__']),
    'another dtype size': (stored({'a': entry('F64')}), ['a [4] of F64 is not 4 bytes']),
    'dtype is no text': (stored({'a': entry(7)}), ['a is 7']),
    'negative shape': (stored({'a': entry(shape=(-2, -2))}), ['shape [-2, -2]']),
    'fraction': (stored({'a': entry(shape=(4.0,))}), ['shape [4.0]']),
    'truth': (stored({'a': entry(shape=(True,), end=1)}, b'1'), ['shape [True]']),
    'shape is a text': (stored({'a': {**entry(), 'shape': '4'}}), ["shape '4'"]),
    'product beyond 64 bits': (
        stored({'a': entry(shape=(1 << 62, 1 << 62))}),
        ['is not 4 bytes'],
    ),
    'product that would wrap to 4': (
        stored({'a': entry(shape=((1 << 32) + 1, (1 << 32) - 1, 4))}),
        ['is not 4 bytes'],
    ),
    'nothing, times much': (
        stored({'a': entry(shape=(0, 1 << 62, 1 << 62), end=0)}, b''),
        ['no place in memory'],
    ),
    'many axes': (stored({'a': entry(shape=(1,) * 100, end=1)}, b'1'), ['a is']),
    'negative offset': (stored({'a': entry(start=-4, end=0)}), ['a lies at [-4, 0]']),
    'backward': (stored({'a': entry(start=4, end=0)}), ['a lies at [4, 0]']),
    'three offsets': (stored({'a': {**entry(), 'data_offsets': [0, 4, 8]}}), ['a lies at']),
    'overlap': (stored(two((0, 4), (2, 6)), bytes(6)), ['b, from byte', 'overlaps']),
    'the same bytes': (stored(two((0, 4), (0, 4))), ['overlaps']),
    'gap': (stored(two((0, 4), (6, 10)), bytes(10)), ['b, from byte', 'leaves a gap']),
    'gap at the start': (stored({'a': entry(start=4, end=8)}, bytes(8)), ['leaves a gap']),
    'beyond the end': (stored({'a': entry(shape=(1 << 40,), end=1 << 40)}), ['a ends at byte']),
    'more than the tensors': (stored({'a': entry()}, bytes(9)), ['5 bytes follow']),
}


@pytest.mark.parametrize('name', SAFETENSORS)
def test_safetensors_that_lie(tmp_path, name):
    content, words = SAFETENSORS[name]
    file = tmp_path / 'x.safetensors'
    file.write_bytes(content)
    refused(lambda: TensorFiles(file), str(file), *words)


def test_a_header_of_hundreds_of_megabytes_is_not_read(tmp_path):
    file = tmp_path / 'x.safetensors'
    with file.open('wb') as content:
        content.write(struct.pack('<Q', 400 << 20) + b'{')
        content.truncate((400 << 20) + 8)  # a hole: it takes no room on the disk
    refused(lambda: TensorFiles(file), str(file), f'header has {400 << 20} bytes')


def test_what_is_true_is_read_as_the_library_wrote_it(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        'b': rng.normal(size=(3, 5)),
        'a': np.arange(7, dtype=np.int16),
        'e': np.empty((0, 3)),
    }
    save_file(arrays, tmp_path / 'x.safetensors', {'format': 'pt'})
    files = TensorFiles(tmp_path / 'x.safetensors')
    assert {name: files.nbytes(name) for name in files} == {n: a.nbytes for n, a in arrays.items()}
    for name, array in arrays.items():
        np.testing.assert_array_equal(files[name], array)
        assert files[name].dtype == array.dtype


@pytest.mark.parametrize('name', ['../x.safetensors', '/etc/passwd', 'a/b.safetensors', '..', ''])
def test_an_index_names_files_of_its_folder_alone(tmp_path, name):
    save_file({'a': np.zeros(3)}, tmp_path / 'x.safetensors')
    folder = tmp_path / 'model'
    folder.mkdir()
    (folder / INDEX).write_text(json.dumps({'weight_map': {'a': name}}))
    refused(lambda: TensorFiles(folder), INDEX if name not in ('..', '') else 'model')


def variables(rest, count=1):
    """A CTranslate2 file whose variables are ``rest``."""
    spec = struct.pack('<H', 12) + b'WhisperSpec\0'
    return struct.pack('<I', 6) + spec + struct.pack('<II', 3, count) + rest


def variable(name=b'a', shape=(4,), code=1, size=4, data=bytes(4)):
    head = struct.pack('<H', len(name) + 1) + name + b'\0'
    axes = struct.pack(f'<B{len(shape)}I', len(shape), *shape)
    return head + axes + struct.pack('<BI', code, size) + data


CTRANSLATE2 = {
    'four billion variables': variables(variable(), 2**32 - 1),
    'beyond the end': variables(variable(shape=(2**32 - 1,), size=2**32 - 1)),
    'product beyond 64 bits': variables(variable(shape=(2**32 - 1,) * 4)),
    'nothing, times much': variables(variable(shape=(0, *(2**32 - 1,) * 3), size=0, data=b'')),
    'many axes': variables(variable(shape=(1,) * 200, size=1, data=b'1')),
    'twice': variables(2 * variable(), 2),
    'name beyond the end': variables(struct.pack('<H', 65535) + b'a'),
}


@pytest.mark.parametrize('name', CTRANSLATE2)
def test_ctranslate2_that_lies(name):
    refused(lambda: ctranslate2.read_variables(CTRANSLATE2[name], 'x.bin'), 'x.bin')


def test_numbers_and_weights_of_ctranslate2_that_are_none():
    zeros = np.zeros
    base = {
        'encoder/conv1/weight': zeros((4, 3, 3), np.float32),
        'encoder/position_encodings/encodings': zeros((5, 4), np.float32),
        'decoder/position_encodings/encodings': zeros((5, 4), np.float32),
        'decoder/embeddings/weight': zeros((9, 4), np.float32),
        'encoder/layer_0/ffn/linear_0/weight': zeros((8, 4), np.float32),
        'decoder/layer_0/ffn/linear_0/weight': zeros((8, 4), np.float32),
    }
    for change in (
        {'encoder/layer_norm/gamma': np.float32(1)},
        {'decoder/activation': zeros(2, np.int8)},
        {'encoder/num_heads': zeros((2, 2), np.int16)},
        {'encoder/conv1/weight': zeros(4, np.float32)},
        {'decoder/embeddings/weight': zeros(4, np.float32)},
    ):
        made = {**base, **change}
        ids = dict.fromkeys((ctranslate2_folder.START, ctranslate2_folder.END), 0)

        def build(made=made, ids=ids):
            tensors = ctranslate2_folder.to_transformers(made, 'x.bin')
            return ctranslate2_folder._config(made, tensors, ids, 'x.bin')

        refused(build, 'x.bin')


def gguf_of(keys=b'', count=0, tensors=0):
    return b'GGUF' + struct.pack('<IQQ', 3, tensors, count) + keys + bytes(64)


def key(code, value):
    return struct.pack('<Q', 1) + b'k' + struct.pack('<I', code) + value


GGUF = {
    'items': (
        gguf_of(key(9, struct.pack('<IQ', 0, (16 << 20) + 1)) + bytes((16 << 20) + 1), 1),
        'items',
    ),
    'a long text': (gguf_of(key(8, struct.pack('<Q', 17 << 20)) + bytes(17 << 20), 1), '17825792'),
    'nothing, times much': (
        gguf_of(
            struct.pack('<Q', 1) + b't' + struct.pack('<I3QIQ', 3, 0, 1 << 62, 1 << 62, 0, 0), 0, 1
        ),
        'tensor t has no values',
    ),
}


@pytest.mark.parametrize('name', GGUF)
def test_gguf_that_costs_more_than_it_has(name):
    content, word = GGUF[name]
    refused(lambda: gguf.GgufFile(content, 'x.gguf'), 'x.gguf', word)


def test_a_token_of_a_megabyte_is_not_split_in_all_ways(tmp_path):
    tokens = ['a', 'b' * (1 << 20)]
    metadata = {'tokenizer.ggml.model': 'llama', 'tokenizer.ggml.tokens': tokens}
    metadata['tokenizer.ggml.scores'] = [0.0, 0.0]
    refused(lambda: gguf_tokenizer.build(metadata, 'x.gguf'), 'x.gguf', '1048576 letters')
    config = {'default_num_special_tokens': 0, 'default_vocab_size': 1, 'pattern': '.'}
    file = tmp_path / 'tekken.json'
    vocabulary = [{'token_bytes': 'YWFh' * 100_000}]
    file.write_text(json.dumps({'config': config, 'special_tokens': [], 'vocab': vocabulary}))
    refused(lambda: tekken.build(file), str(file), '300000 letters')
    config['default_num_special_tokens'] = 10**12  # each would get a name
    file.write_text(json.dumps({'config': config, 'special_tokens': [], 'vocab': []}))
    refused(lambda: tekken.build(file), str(file), '1000000000000 special tokens')
    config |= {'default_num_special_tokens': 0, 'pattern': '*'}
    file.write_text(json.dumps({'config': config, 'special_tokens': [], 'vocab': []}))
    refused(lambda: tekken.build(file), str(file), 'its pattern is none')


def varint(number):
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def table(blocks, handles):
    """A LevelDB table: data blocks, and which of them its index names, in order."""
    data, places = b'', []
    for block in blocks:
        places.append(varint(len(data)) + varint(len(block) + 4))
        data += block + (0).to_bytes(4, 'little') + bytes(5)
    index = b''.join(item(b'%06d' % n, places[which]) for n, which in enumerate(handles))
    footer = varint(0) + varint(4) + varint(len(data)) + varint(len(index) + 4)
    magic = savedmodel.TABLE_MAGIC.to_bytes(8, 'little')
    return data + index + bytes(4) + bytes(5) + footer.ljust(40, b'\0') + magic


def item(key, value, shared=0):
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def test_a_savedmodel_whose_index_names_one_block_again_and_again():
    block = b''.join(item(b'v%06d' % n, b'\x08\x07') for n in range(1000))
    index = table([block], [0] * 1000)
    refused(lambda: savedmodel.read_variables(index, b''), 'do not rise')


def test_a_savedmodel_whose_keys_grow_from_each_other():
    """What a key shares with the one before it costs nothing in the file."""
    block = item(b'v' * 1000, b'\x08\x07')
    block += b''.join(item(b'w', b'\x08\x07', 1000 + n) for n in range(1000))
    refused(lambda: savedmodel.read_variables(table([block], [0]), b''), 'overruns')


def test_the_bounds_leave_room_for_real_files():
    tensors = 100_000  # of the largest mixtures of experts, in one shard
    name = 'model.layers.100.mlp.experts.255.down_proj.weight_scale_inv'
    line = len(json.dumps({name: entry('BF16', (7168, 2048), 10**12, 10**12)}))
    assert tensors * line < safetensors_header.LONGEST
