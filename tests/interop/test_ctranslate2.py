"""CTranslate2 Whisper files: one that is written here by the format's description, and damaged."""

import contextlib
import itertools
import json
import struct

import ml_dtypes
import numpy as np
import parity
import pytest
import tokenizers
import torch
import transformers

import alm_jax
from alm_jax.config import ConfigError
from alm_jax.interop import convert, ctranslate2_folder, diff, inspection, sources
from alm_jax.interop.ctranslate2 import read_variables
from alm_jax.interop.pretrained import from_pretrained

TYPES = [np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16]
SPECIAL = ['endoftext', 'startoftranscript', 'en', 'fr', 'translate', 'transcribe', 'startofprev']
SPECIAL = [f'<|{name}|>' for name in [*SPECIAL, 'notimestamps']]


def text(value):
    return struct.pack('<H', len(value) + 1) + value.encode() + b'\0'


def model_bin(variables, aliases=(), version=6, spec='WhisperSpec', revision=3):
    """The file, as python/ctranslate2/specs/model_spec.py describes it."""
    content = struct.pack('<I', version) + text(spec) + struct.pack('<I', revision)
    content += struct.pack('<I', len(variables))
    for name, value in variables.items():
        content += text(name) + struct.pack(f'<B{value.ndim}I', value.ndim, *value.shape)
        if version >= 4:
            content += struct.pack('<BI', TYPES.index(value.dtype), value.nbytes)
        else:
            content += struct.pack('<BI', value.itemsize, value.size)
        content += value.tobytes()
    if version >= 3:
        content += struct.pack('<I', len(aliases))
        for alias, name in aliases:
            content += text(alias) + text(name)
    return content


def converted_by_ctranslate2(model):
    """What its converter makes of transformers' model (WhisperLoader), in float32."""
    tensors = {name: tensor.numpy() for name, tensor in model.model.state_dict().items()}
    written = {}

    def layer(theirs, *ours):
        for leaf, name in (('weight', 'weight'), ('bias', 'bias')):
            parts = [
                tensors.get(f'{our}.{leaf}', np.zeros(len(tensors[f'{our}.weight']), np.float32))
                for our in ours
            ]
            written[f'{theirs}/{name}'] = np.concatenate(parts)

    def norm(theirs, ours):
        written[f'{theirs}/gamma'] = tensors[f'{ours}.weight']
        written[f'{theirs}/beta'] = tensors[f'{ours}.bias']

    for part in ('encoder', 'decoder'):
        written[f'{part}/num_heads'] = np.int16(4)
        written[f'{part}/position_encodings/encodings'] = tensors[f'{part}.embed_positions.weight']
        norm(f'{part}/layer_norm', f'{part}.layer_norm')
        for i in range(2):
            theirs, ours = f'{part}/layer_{i}', f'{part}.layers.{i}'
            layer(
                f'{theirs}/self_attention/linear_0',
                *(f'{ours}.self_attn.{name}_proj' for name in 'qkv'),
            )
            layer(f'{theirs}/self_attention/linear_1', f'{ours}.self_attn.out_proj')
            norm(f'{theirs}/self_attention/layer_norm', f'{ours}.self_attn_layer_norm')
            layer(f'{theirs}/ffn/linear_0', f'{ours}.fc1')
            layer(f'{theirs}/ffn/linear_1', f'{ours}.fc2')
            norm(f'{theirs}/ffn/layer_norm', f'{ours}.final_layer_norm')
            if part == 'decoder':
                cross, attention = f'{theirs}/attention', f'{ours}.encoder_attn'
                layer(f'{cross}/linear_0', f'{attention}.q_proj')
                layer(f'{cross}/linear_1', f'{attention}.k_proj', f'{attention}.v_proj')
                layer(f'{cross}/linear_2', f'{attention}.out_proj')
                norm(f'{cross}/layer_norm', f'{ours}.encoder_attn_layer_norm')
    layer('encoder/conv1', 'encoder.conv1')
    layer('encoder/conv2', 'encoder.conv2')
    written['decoder/embeddings/weight'] = tensors['decoder.embed_tokens.weight']
    written |= {'decoder/activation': np.int8(3), 'decoder/pre_norm': np.int8(1)}
    return dict(sorted(written.items()))


def quantised(variables, dtype):
    """Linear weights and embeddings as integers; the rest in half precision with int8."""
    made = {}
    for name, value in variables.items():
        if name.endswith('weight') and 'conv' not in name:
            rows = np.abs(value).max(axis=1) if dtype == np.int8 else np.abs(value).max()
            scale = np.float32((127 if dtype == np.int8 else 1024) / rows)
            made[name] = np.rint(value * scale.reshape(-1, 1)).astype(dtype)
            made[f'{name}_scale'] = scale
        else:
            half = dtype == np.int8 and value.ndim
            made[name] = value.astype(np.float16) if half else value
    return made


@pytest.fixture(scope='module')
def reference():
    """A multilingual Whisper of vanishing size, but for its vocabulary's."""
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=20,
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=12,
        attn_implementation='eager',
    )
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config)
    parity.randomise(model)
    return model.eval()


@pytest.fixture(scope='module')
def variables(reference):
    return converted_by_ctranslate2(reference)


@pytest.fixture(scope='module')
def tokenizer():
    vocabulary = {token: i for i, token in enumerate(['a', 'b', 'c', *SPECIAL])}
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token='a')).to_str()


@pytest.fixture
def folder(tmp_path, variables, tokenizer):
    """As faster-whisper's folders are, under a name of its own."""
    path = tmp_path / 'whisper-mu'
    path.mkdir()
    aliases = [('decoder/projection/weight', 'decoder/embeddings/weight')]
    (path / 'model.bin').write_bytes(model_bin(variables, aliases))
    config = {'suppress_ids': [1], 'suppress_ids_begin': [2], 'alignment_heads': [[1, 0]]}
    (path / 'config.json').write_text(json.dumps(config))
    (path / 'tokenizer.json').write_text(tokenizer)
    return path


def test_a_converted_model_says_what_the_original_says(folder, reference, tmp_path):
    made = ctranslate2_folder.cached(folder, tmp_path)
    assert made.parent == tmp_path / 'weights' / 'ctranslate2'
    model = from_pretrained(made)
    mel = np.random.default_rng(0).normal(size=(2, 20, 8)).astype(np.float32)
    ids = np.array([[4, 5, 8, 1], [4, 6, 8, 2]], np.int32)
    theirs = reference(torch.tensor(mel).transpose(1, 2), decoder_input_ids=torch.tensor(ids))
    parity.check({'logits': (model(mel, ids)['logits'], theirs.logits)})
    tokens = model.tokens
    assert (tokens.start, tokens.end, tokens.no_timestamps, tokens.previous) == (4, 3, 10, 9)
    assert (tokens.languages, tokens.tasks) == (
        {'en': 5, 'fr': 6},
        {'translate': 7, 'transcribe': 8},
    )
    assert (tokens.suppressed, tokens.suppressed_first) == ((1,), (2,))
    again = transformers.WhisperForConditionalGeneration.from_pretrained(made)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    first = (made / 'model.safetensors').stat().st_mtime_ns
    assert ctranslate2_folder.cached(folder, tmp_path) == made
    assert (made / 'model.safetensors').stat().st_mtime_ns == first


def test_inspect_convert_and_load(folder, tmp_path, monkeypatch):
    text = inspection.table(sources.open_source(folder))
    assert 'kind       CTranslate2 folder' in text
    assert 'family     Whisper' in text
    assert 'all names match' in text
    rows = {line.split('  ')[0]: line for line in text.splitlines()}
    fused = rows['encoder/layer_1/self_attention/linear_0/weight']
    parts = ' + '.join(f'encoder/layers/1/attn/{name}/kernel' for name in ('query', 'key', 'value'))
    assert fused.endswith(parts)
    assert rows['decoder/num_heads'].endswith('(not a part of the model)')
    convert.convert(folder, tmp_path / 'converted')
    report = diff.diff(
        sources.open_source(folder), sources.open_source(tmp_path / 'converted'), run=False
    )
    assert not any(one.largest for one in report.tensors)
    assert not report.only_a + report.only_b
    monkeypatch.setenv('ALM_JAX_DATA', str(tmp_path / 'data'))
    assert alm_jax.load(folder).config['model_type'] == 'whisper'


OLD_TYPES = (np.float32, np.int16)  # before version 4 there are no others
ALL_TYPES = (*OLD_TYPES, np.float16, ml_dtypes.bfloat16, np.int8)


@pytest.mark.parametrize(
    ('version', 'dtype'),
    [*itertools.product((2, 3), OLD_TYPES), *itertools.product((4, 6), ALL_TYPES)],
)
def test_every_version_and_type(variables, version, dtype):
    some = {n: v for n, v in variables.items() if 'layer_1' in n or v.ndim == 0}
    if dtype in (np.int8, np.int16):
        stored = quantised(some, dtype)
    else:
        stored = {n: v.astype(dtype) if v.ndim else v for n, v in some.items()}
    got = read_variables(model_bin(stored, version=version))
    assert set(got) == set(some)
    for name, value in some.items():
        np.testing.assert_array_equal(got[name].shape, value.shape)
        error = np.abs(np.float32(got[name]) - value).max()
        allowed = {np.float32: 0, np.float16: 2**-11, ml_dtypes.bfloat16: 2**-8}
        assert error <= allowed.get(dtype, 1 / 250) * np.abs(value).max(), name


def test_damage_names_the_file_and_the_variable(variables):
    some = {name: variables[name] for name in ('encoder/conv1/bias', 'encoder/conv1/weight')}
    whole = model_bin(some, [('head', 'encoder/conv1/weight')])
    for size in range(len(whole)):
        with pytest.raises(ConfigError, match=r'^model\.bin: '):
            read_variables(whole[:size])
    with pytest.raises(ConfigError, match=r'^here: encoder/conv1/weight: needs 1536 bytes at'):
        read_variables(whole[:200], 'here')
    for place in range(len(whole)):  # whatever a byte becomes, nothing but a ConfigError
        for mask in (0x01, 0x80):
            damaged = whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :]
            with contextlib.suppress(ConfigError):
                read_variables(damaged)


BIAS = 'decoder/layer_0/self_attention/linear_0/bias'
WEIGHT = 'encoder/layer_0/ffn/linear_0/weight'


@pytest.mark.parametrize(
    ('change', 'options', 'words'),
    [
        ({}, {'version': 7}, 'version 7; 2 to 6 are read'),
        ({}, {'spec': 'TransformerSpec'}, "a 'TransformerSpec' of revision 3"),
        ({}, {'revision': 4}, 'of revision 4'),
        ({}, {'aliases': [('head', 'nothing')]}, 'head stands for nothing'),
        ({BIAS: np.ones(48, np.float32)}, {}, f'{BIAS} has a bias on keys'),
        ({WEIGHT: np.zeros((24, 16), np.int8)}, {}, f'{WEIGHT}: its int8 has no scale'),
        ({'encoder/conv3/bias': np.zeros(3, np.float32)}, {}, 'encoder/conv3/bias .* has no place'),
        ({'decoder/activation': np.int8(0)}, {}, 'decoder/activation is 0'),
        ({'encoder/conv1/weight': None}, {}, r'there is no model\.encoder\.conv1\.weight'),
    ],
)
def test_other_models_are_refused(variables, tokenizer, change, options, words):
    changed = {n: v for n, v in {**variables, **change}.items() if v is not None}
    with pytest.raises(ConfigError, match=words):
        ctranslate2_folder.to_folder(model_bin(changed, **options), {}, tokenizer.encode())


@pytest.mark.parametrize('name', ['model.bin', 'config.json', 'tokenizer.json'])
def test_what_a_folder_lacks_is_named(folder, tmp_path, name):
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f'whisper-mu has no {name}'):
        ctranslate2_folder.cached(folder, tmp_path)
    (folder / name).write_bytes(b'')
    with pytest.raises(ConfigError, match=name):
        ctranslate2_folder.cached(folder, tmp_path)
    assert not list((tmp_path / 'weights' / 'ctranslate2').glob('*'))
