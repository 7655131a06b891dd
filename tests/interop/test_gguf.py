"""GGUF headers, tensors of every type, and damaged files, against ggml's own gguf package."""

import struct

import gguf
import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.interop import gguf_types
from alm_jax.interop.gguf import GgufFile

PLAIN = {'F32': np.float32, 'F16': np.float16}
QUANTISED = ('BF16', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0')  # those the package can also make
KEYS = {
    'a.uint8': ('add_uint8', 200),
    'a.int8': ('add_int8', -5),
    'a.uint16': ('add_uint16', 60_000),
    'a.int16': ('add_int16', -300),
    'a.uint32': ('add_uint32', 4_000_000_000),
    'a.int32': ('add_int32', -70_000),
    'a.uint64': ('add_uint64', 1 << 40),
    'a.int64': ('add_int64', -(1 << 40)),
    'a.float32': ('add_float32', 0.5),
    'a.float64': ('add_float64', 0.1),
    'a.bool': ('add_bool', True),
    'a.string': ('add_string', 'Grüße'),
    'a.numbers': ('add_array', [3, 1, 2]),
    'a.strings': ('add_array', ['x', '', 'é']),
    'a.nested': ('add_array', [[1, 2], [3]]),
}


def written(path, tensors=(), keys=KEYS, alignment=None):
    """A file made by the gguf package: tensors are (name, array, type name)."""
    writer = gguf.GGUFWriter(path, 'llama')
    if alignment:
        writer.add_custom_alignment(alignment)
    for key, (method, value) in keys.items():
        getattr(writer, method)(key, value)
    for name, array, kind in tensors:
        code = gguf.GGMLQuantizationType[kind]
        stored = array.astype(PLAIN[kind]) if kind in PLAIN else gguf.quants.quantize(array, code)
        writer.add_tensor(name, stored, raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """Every type that the package writes, odd shapes among them."""
    rng = np.random.default_rng(0)
    tensors = [
        (f'{kind}.weight', rng.standard_normal((3, 5, 64)).astype(np.float32), kind)
        for kind in (*PLAIN, *QUANTISED)
    ]
    tensors.append(('vector', rng.standard_normal(7).astype(np.float32), 'F32'))
    return written(tmp_path_factory.mktemp('gguf') / 'small.gguf', tensors, alignment=64)


def test_every_key_and_tensor(small):
    ours = GgufFile(small)
    for key, (_, value) in KEYS.items():
        want = pytest.approx(value) if isinstance(value, float) else value
        assert ours.metadata[key] == want, key
    reader = gguf.GGUFReader(small)
    assert sorted(ours) == sorted(tensor.name for tensor in reader.tensors)
    assert len(ours) == 9
    for tensor in reader.tensors:
        want = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        got = ours[tensor.name]
        assert got.dtype == np.float32
        assert ours.type(tensor.name) == tensor.tensor_type.name
        assert got.shape == ours.shape(tensor.name) == want.shape
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('kind', gguf_types.TYPES.values(), ids=lambda kind: kind.name)
def test_any_bits_of_any_type(kind):
    """Random blocks, whatever number they make: the package's result, bit for bit."""
    code = gguf.GGMLQuantizationType[kind.name]
    assert (kind.values, kind.bytes) == gguf.GGML_QUANT_SIZES[code]
    raw = np.random.default_rng(0).integers(0, 256, (40, 4 * kind.bytes), dtype=np.uint8)
    with np.errstate(all='ignore'):
        want = gguf.quants.dequantize(raw, code)
    got = kind.read(raw.reshape(-1))
    np.testing.assert_array_equal(got.view(np.uint32), want.reshape(-1).view(np.uint32))


def test_long_tensors_are_turned_in_parts(monkeypatch):
    kind = gguf_types.TYPES[14]
    raw = np.random.default_rng(0).integers(0, 100, 50 * kind.bytes, dtype=np.uint8)
    whole = kind.read(raw)
    monkeypatch.setattr(gguf_types, 'CHUNK', 7)
    np.testing.assert_array_equal(kind.read(raw), whole)


def test_version_2_and_content_in_memory(small):
    content = bytearray(small.read_bytes())
    content[4:8] = struct.pack('<I', 2)
    assert sorted(GgufFile(bytes(content), 'in memory')) == sorted(GgufFile(small))


def test_every_truncation_is_an_error(small):
    content = small.read_bytes()
    header = GgufFile(small).header_bytes
    for length in [*range(0, header, 7), header, len(content) - 64]:
        with pytest.raises(ConfigError, match=r'^cut\.gguf'):
            GgufFile(content[:length], 'cut.gguf')


def test_random_damage_is_read_or_refused(small):
    """Two thousand headers with a few wrong bytes: never another exception, never much memory."""
    rng = np.random.default_rng(0)
    original = np.frombuffer(small.read_bytes(), np.uint8)
    end = GgufFile(small).header_bytes
    refusals = []
    for _ in range(2000):
        content = original.copy()
        where = rng.integers(0, end, rng.integers(1, 4))
        content[where] = rng.choice(np.array([0, 1, 9, 127, 255], np.uint8), len(where))
        refusals.append(refusal(content.tobytes()))
    refusals = [message for message in refusals if message]
    assert len(refusals) > 500
    assert all(message.startswith('damaged.gguf') for message in refusals)


def refusal(content):
    """The message of a ConfigError, or None when all is read."""
    try:
        file = GgufFile(content, 'damaged.gguf')
    except ConfigError as error:
        return str(error)
    assert sum(file[name].nbytes for name in file) < 1 << 20
    return None


def header(*, version=3, tensors=0, keys=0, rest=b''):
    return b'GGUF' + struct.pack('<IQQ', version, tensors, keys) + rest


def key(name, code, value=b''):
    return struct.pack('<Q', len(name)) + name + struct.pack('<I', code) + value


def tensor(name=b't', sizes=(32,), code=8, offset=0):
    sizes = struct.pack(f'<I{len(sizes)}Q', len(sizes), *sizes)
    return struct.pack('<Q', len(name)) + name + sizes + struct.pack('<IQ', code, offset)


PAD = bytes(4096)
BAD = {
    'not GGUF': (b'PK\3\4' + PAD, 'not a GGUF file'),
    'version 1': (header(version=1, rest=PAD), 'version 1; 2 and 3'),
    'big-endian': (header(version=3 << 24, rest=PAD), 'big-endian'),
    'many tensors': (header(tensors=1 << 60), 'counts 1152921504606846976 tensors'),
    'many keys': (header(keys=1 << 60), 'counts 1152921504606846976 metadata keys'),
    'long key': (header(keys=1, rest=struct.pack('<Q', 1 << 62) + PAD), 'metadata key 0'),
    'long string': (
        header(keys=1, rest=key(b'k', 8, struct.pack('<Q', 1 << 62)) + PAD),
        'it ends within k',
    ),
    'long array': (
        header(keys=1, rest=key(b'k', 9, struct.pack('<IQ', 10, 1 << 61)) + PAD),
        'counts 2305843009213693952 k',
    ),
    'array of strings': (
        header(keys=1, rest=key(b'k', 9, struct.pack('<IQ', 8, 1000)) + PAD),
        'counts 1000 k',
    ),
    'array of arrays': (
        header(keys=1, rest=key(b'k', 9, struct.pack('<IQ', 9, 1) * 9) + PAD),
        "'k' has a value of unknown type 9",
    ),
    'unknown value': (header(keys=1, rest=key(b'k', 13) + PAD), 'unknown type 13'),
    'key twice': (header(keys=2, rest=key(b'k', 0, b'1') * 2 + PAD), "'k' stands there twice"),
    'not UTF-8': (header(keys=1, rest=key(b'\xff', 0, b'1') + PAD), 'not UTF-8'),
    'alignment': (
        header(keys=1, rest=key(b'general.alignment', 4, struct.pack('<I', 48)) + PAD),
        'general.alignment is 48',
    ),
    'unknown tensor': (header(tensors=1, rest=tensor(code=99) + PAD), 'tensor t is stored as type'),
    'many dimensions': (
        header(tensors=1, rest=tensor(sizes=(1,) * 5) + PAD),
        'tensor t has 5 dimensions',
    ),
    'part of a block': (header(tensors=1, rest=tensor(sizes=(33,)) + PAD), 'not whole blocks'),
    'scalar block': (header(tensors=1, rest=tensor(sizes=()) + PAD), 'not whole blocks'),
    'overflow': (
        header(tensors=1, rest=tensor(sizes=(1 << 62, 1 << 62), code=0) + PAD),
        'its tensors are larger than the file',
    ),
    'offset': (header(tensors=1, rest=tensor(offset=1 << 63) + PAD), 'tensor t ends at byte'),
    'odd offset': (header(tensors=1, rest=tensor(offset=16) + PAD), 'no multiple of 32'),
    'tensor twice': (header(tensors=2, rest=tensor() * 2 + PAD), 'a tensor name stands there'),
    'overlapping': (
        header(
            tensors=3, rest=b''.join(tensor(bytes([97 + i]), (2048,), 8) for i in range(3)) + PAD
        ),
        'its tensors are larger than the file',
    ),
}


@pytest.mark.parametrize('name', BAD)
def test_a_hostile_header(name, tmp_path):
    content, message = BAD[name]
    file = tmp_path / 'bad.gguf'
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        GgufFile(file)
    assert message in str(error.value)
    assert str(error.value).startswith(str(file))


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r'no\.gguf cannot be read'):
        GgufFile(tmp_path / 'no.gguf')
