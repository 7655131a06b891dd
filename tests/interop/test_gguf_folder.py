"""GGUF files as folders, against transformers' own reading of the same files."""

import json

import gguf
import jax
import numpy as np
import parity
import pytest
import tokenizers
import torch
import transformers
from safetensors.numpy import load_file
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    convert_gguf_tokenizer,
    get_gguf_tokenizer,
)
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from alm_jax.config import ConfigError
from alm_jax.interop import gguf_folder, gguf_tokenizer, pretrained, rope_config, tensor_files
from alm_jax.interop.gguf import GgufFile
from alm_jax.models.layers.rotary import Rope

TEXTS = ['the cat sat on the mat', 'a Mat, 1234!', "it's\n\n  the  café", '<|end|> of<s>', '日本']
WIDTH, HEADS, KV_HEADS, HEAD_DIM, MLP, LAYERS, VOCABULARY = 32, 4, 2, 8, 64, 2, 300
ATTENTION = {
    'attn_q.weight': (HEADS * HEAD_DIM, WIDTH),
    'attn_k.weight': (KV_HEADS * HEAD_DIM, WIDTH),
    'attn_v.weight': (KV_HEADS * HEAD_DIM, WIDTH),
    'attn_output.weight': (WIDTH, HEADS * HEAD_DIM),
    'attn_norm.weight': (WIDTH,),
    'ffn_norm.weight': (WIDTH,),
}
GATED = {
    **ATTENTION,
    'ffn_gate.weight': (MLP, WIDTH),
    'ffn_up.weight': (MLP, WIDTH),
    'ffn_down.weight': (WIDTH, MLP),
}
QK_NORMS = {'attn_q_norm.weight': (HEAD_DIM,), 'attn_k_norm.weight': (HEAD_DIM,)}
BIASES = {
    'attn_q.bias': (HEADS * HEAD_DIM,),
    'attn_k.bias': (KV_HEADS * HEAD_DIM,),
    'attn_v.bias': (KV_HEADS * HEAD_DIM,),
}
POST_NORMS = {'post_attention_norm.weight': (WIDTH,), 'post_ffw_norm.weight': (WIDTH,)}
GPT2 = {
    'attn_qkv.weight': (3 * WIDTH, WIDTH),
    'attn_qkv.bias': (3 * WIDTH,),
    'attn_output.weight': (WIDTH, WIDTH),
    'attn_output.bias': (WIDTH,),
    'attn_norm.weight': (WIDTH,),
    'attn_norm.bias': (WIDTH,),
    'ffn_norm.weight': (WIDTH,),
    'ffn_norm.bias': (WIDTH,),
    'ffn_up.weight': (MLP, WIDTH),
    'ffn_up.bias': (MLP,),
    'ffn_down.weight': (WIDTH, MLP),
    'ffn_down.bias': (WIDTH,),
}
GPT2_OUTSIDE = {'position_embd.weight': (64, WIDTH), 'output_norm.bias': (WIDTH,)}
HEAD = {'output.weight': (VOCABULARY, WIDTH)}
ARCHITECTURES = {  # of a layer, and beside the layers
    'llama': (GATED, HEAD),
    'qwen2': ({**GATED, **BIASES}, {}),
    'qwen3': ({**GATED, **QK_NORMS}, {}),
    'gemma2': ({**GATED, **POST_NORMS}, {}),
    'gemma3': ({**GATED, **POST_NORMS, **QK_NORMS}, {}),
    'gpt2': (GPT2, GPT2_OUTSIDE),
}


def byte_level():
    """A trained byte-level BPE of 290 tokens, and three special ones."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=['<|end|>', '<s>', '<think>'],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def add_tokenizer(writer, pre='gpt-2'):
    content = json.loads(byte_level().to_str())['model']
    tokens = sorted(content['vocab'], key=content['vocab'].get)
    tokens += [f'unused{i}' for i in range(VOCABULARY - len(tokens))]
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 4] + [1] * (len(tokens) - 3))
    writer.add_token_merges([' '.join(pair) for pair in content['merges']])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_chat_template('{{ messages }}')


def set_value(name, value, kind):
    def change(writer):
        writer.kv_data[0][name] = gguf.gguf_writer.GGUFValue(value, kind)

    return change


def write(path, kind, *, change=lambda writer: None, drop=(), extra=None):
    """A small random file of an architecture, in llama.cpp's names and layouts."""
    layer, outside = ARCHITECTURES[kind]
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name(kind)
    numbers = {
        'add_embedding_length': WIDTH,
        'add_block_count': LAYERS,
        'add_head_count': HEADS,
        'add_head_count_kv': HEADS if kind == 'gpt2' else KV_HEADS,
        'add_key_length': HEAD_DIM,
        'add_feed_forward_length': MLP,
        'add_context_length': 64,
        'add_rope_freq_base': 5000.0,
        'add_layer_norm_rms_eps': 1e-5,
        'add_layer_norm_eps': 1e-5,
    }
    if kind.startswith('gemma'):
        numbers['add_sliding_window'] = 8
    if kind == 'gemma2':
        numbers |= {'add_attn_logit_softcapping': 50.0, 'add_final_logit_softcapping': 30.0}
    for method, value in numbers.items():
        if method not in drop:
            getattr(writer, method)(value)
    if 'tokenizer' not in drop:
        add_tokenizer(writer)
    change(writer)
    shapes = {'token_embd.weight': (VOCABULARY, WIDTH), 'output_norm.weight': (WIDTH,), **outside}
    shapes |= {f'blk.{i}.{name}': shape for i in range(LAYERS) for name, shape in layer.items()}
    rng = np.random.default_rng(0)
    for name, shape in {**shapes, **(extra or {})}.items():
        array = shape
        if isinstance(shape, tuple):
            array = rng.standard_normal(shape).astype(np.float32)
        if array.ndim == 2:
            array = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize('kind', ARCHITECTURES)
def test_weights_and_config_equal_transformers(kind, tmp_path):
    """Every tensor of their model has our bits; then it loads here as its family."""
    file = write(tmp_path / 'model.gguf', kind)
    folder = gguf_folder.cached(file, tmp_path / 'data')
    config = json.loads((folder / 'config.json').read_text())
    model_config = transformers.AutoConfig.for_model(**config)
    theirs = load_gguf_checkpoint(file)['config']
    for name, value in theirs.items():
        # Theirs has GPT-2's length under a key that no GPT2Config has.
        if not name.startswith('_') and name not in ('n_ctx', 'feed_forward_length'):
            assert config[name] == value, name
    reference = transformers.AutoModelForCausalLM.from_config(model_config)
    tensors = load_gguf_checkpoint(file, return_tensors=True, model_to_load=reference)['tensors']
    ours = load_file(folder / 'model.safetensors')
    assert set(ours) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(ours[name], tensor.numpy(), err_msg=name)
    model = pretrained.from_pretrained(folder)
    assert model.stop_ids == (0,)
    assert (folder / 'chat_template.jinja').read_text() == '{{ messages }}'


def test_the_file_itself_is_loaded_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv('ALM_JAX_DATA', str(tmp_path / 'data'))
    file = write(tmp_path / 'model.gguf', 'llama')
    monkeypatch.setattr(tensor_files, 'SHARD_BYTES', 20_000)
    model = pretrained.from_pretrained(file)
    assert len(list(model.folder.glob('*.safetensors'))) > 2
    parent = tmp_path / 'data' / 'weights' / 'gguf'
    assert list(parent.iterdir()) == [model.folder]
    before = {path: path.stat().st_mtime_ns for path in model.folder.iterdir()}
    again = pretrained.from_pretrained(file)
    assert {path: path.stat().st_mtime_ns for path in again.folder.iterdir()} == before

    reference = transformers.AutoModelForCausalLM.from_pretrained(model.folder).eval()
    ids, mask = parity.padded([[5, 6, 7, 8], [9, 10]], 5)
    theirs = reference(torch.tensor(ids).long(), torch.tensor(mask).long()).logits
    ours = jax.jit(lambda ids, mask: model(ids, mask))(ids, mask)['logits']
    parity.check({'logits': (ours, theirs)}, {'logits': mask})

    file.write_bytes(file.read_bytes() + b'more')
    assert pretrained.from_pretrained(file).folder != model.folder


@pytest.mark.parametrize('pre', ['gpt-2', 'smollm', 'qwen2', 'llama-bpe'])
def test_byte_level_tokens_equal_transformers(pre, tmp_path):
    def change(writer):
        writer.kv_data[0]['tokenizer.ggml.pre'] = gguf.gguf_writer.GGUFValue(
            pre, gguf.GGUFValueType.STRING
        )
        writer.add_add_bos_token(False)

    file = write(tmp_path / 'model.gguf', 'llama', change=change)
    ours = gguf_tokenizer.build(GgufFile(file).metadata, 'here')
    theirs, _ = convert_gguf_tokenizer(*get_gguf_tokenizer(file)[:2])
    for text in TEXTS:
        encoded = ours.encode(text)
        if pre != 'smollm':  # they split its digits like its words
            assert encoded.ids == theirs.encode(text).ids, text
        assert ours.decode(encoded.ids, skip_special_tokens=False) == text
    assert ours.encode('<s>').ids == [1]
    assert ours.decode(ours.encode('a<s><think>').ids) == 'a<think>'
    if pre == 'gpt-2':
        whole = byte_level()
        assert [ours.encode(t).ids for t in TEXTS] == [whole.encode(t).ids for t in TEXTS]


def piece_vocabulary():
    """SentencePiece's: byte tokens, and pieces whose scores say which merge comes first."""
    pieces = ['▁t', 'he', '▁the', '▁c', 'at', '▁cat', '▁s', '▁sat', '▁m', '▁mat', 'on', '▁on', '  ']
    letters = sorted({letter for text in TEXTS[:3] for letter in text if letter.isascii()} - {' '})
    tokens = ['<unk>', '<s>', '</s>', *(f'<0x{i:02X}>' for i in range(256))]
    types = [2, 3, 3, *[6] * 256]
    scores = [0.0] * len(tokens)
    for rank, piece in enumerate([*pieces, '▁', *letters]):
        tokens.append(piece)
        types.append(1)
        scores.append(-float(rank))
    return tokens, types, scores


@pytest.mark.parametrize('kind', ['llama', 'gemma2'])
def test_sentence_pieces_equal_transformers(kind, tmp_path):
    def change(writer):
        tokens, types, scores = piece_vocabulary()
        writer.add_tokenizer_model('llama')
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_scores(scores)
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_space_prefix(kind == 'llama')

    file = write(tmp_path / 'model.gguf', kind, drop=('tokenizer',), change=change)
    ours = gguf_tokenizer.build(GgufFile(file).metadata, 'here')
    theirs, _ = convert_gguf_tokenizer(*get_gguf_tokenizer(file)[:2])
    for text in ['the cat sat on the mat', 'Mat é', "it's  the\ncat", '日本 the']:
        ids = ours.encode(text).ids
        assert ids[0] == 1
        assert ids[1:] == theirs.encode(text, add_special_tokens=False).ids, text
        assert ours.decode(ids) == text


def test_llama_3_scaling_comes_from_its_divisors(tmp_path):
    base = 500_000.0
    change = set_value('llama.rope.freq_base', base, gguf.GGUFValueType.FLOAT32)
    scaled = Rope(base, 'llama3', 32.0, 8192).frequencies(HEAD_DIM)
    divisors = (Rope(base).frequencies(HEAD_DIM) / scaled).astype(np.float32)
    extra = {'rope_freqs.weight': divisors}
    file = write(tmp_path / 'model.gguf', 'llama', change=change, extra=extra)
    config = json.loads(gguf_folder.files(GgufFile(file))['config.json'])
    assert rope_config.rope(config) == Rope(base, 'llama3', 32.0, 8192)
    extra['rope_freqs.weight'] = divisors + 1
    wrong = write(tmp_path / 'wrong.gguf', 'llama', change=change, extra=extra)
    with pytest.raises(ConfigError, match=r'rope_freqs\.weight is not the scaling'):
        gguf_folder.files(GgufFile(wrong))


STRING, UINT, ARRAY = (gguf.GGUFValueType[n] for n in ('STRING', 'UINT32', 'ARRAY'))
BAD = {
    'general.architecture': (set_value('general.architecture', 'lama', STRING), "Did you mean 'll"),
    'llama.attention.head_count': (
        set_value('llama.attention.head_count', 0, UINT),
        'head_count is 0, not above 0',
    ),
    'llama.block_count': (
        set_value('llama.block_count', 'two', STRING),
        'llama.block_count is missing or no number',
    ),
    'llama.rope.scaling.type': (
        set_value('llama.rope.scaling.type', 'longrope', STRING),
        "rope.scaling.type 'longrope'",
    ),
    'llama.rope.dimension_count': (
        set_value('llama.rope.dimension_count', 4, UINT),
        'rope.dimension_count is 4',
    ),
    'tokenizer.ggml.model': (
        set_value('tokenizer.ggml.model', 'rwkv', STRING),
        "tokenizer.ggml.model 'rwkv' is not read",
    ),
    'tokenizer.ggml.pre': (
        set_value('tokenizer.ggml.pre', 'qwen3', STRING),
        "Did you mean 'qwen2'",
    ),
    'tokenizer.ggml.tokens': (
        set_value('tokenizer.ggml.tokens', [1, 2], ARRAY),
        'tokenizer.ggml.tokens is not a list of str',
    ),
    'tokenizer.ggml.token_type': (
        set_value('tokenizer.ggml.token_type', [1, 2], ARRAY),
        'token_type has 2 for 300 tokens',
    ),
    'tokenizer.ggml.merges': (
        set_value('tokenizer.ggml.merges', ['x', 'y z'], ARRAY),
        "merges: 'x' fits no tokens",
    ),
    'tokenizer.ggml.eos_token_id': (
        set_value('tokenizer.ggml.eos_token_id', 300, UINT),
        'eos_token_id is 300, beyond the last',
    ),
}


@pytest.mark.parametrize('name', BAD)
def test_metadata_that_make_no_model(name, tmp_path):
    change, message = BAD[name]
    file = write(tmp_path / 'bad.gguf', 'llama', change=change)
    with pytest.raises(ConfigError) as error:
        gguf_folder.cached(file, tmp_path / 'data')
    assert message in str(error.value)
    assert str(error.value).startswith(str(file))
    assert not list((tmp_path / 'data').glob('weights/gguf/*'))


def test_a_tensor_without_a_place(tmp_path):
    extra = {'blk.0.ffn_gate_exps.weight': (2, WIDTH)}
    file = write(tmp_path / 'experts.gguf', 'llama', extra=extra)
    with pytest.raises(ConfigError, match=r'blk\.0\.ffn_gate_exps\.weight has no place in a'):
        gguf_folder.cached(file, tmp_path / 'data')
