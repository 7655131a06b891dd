"""Small checkpoints of several formats, made by the libraries whose formats they are."""

import gguf
import numpy as np
import parity
import torch
import transformers

LLAMA = {
    'hidden_size': 32,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'intermediate_size': 48,
    'vocab_size': 60,
    'max_position_embeddings': 64,
}


def llama(folder, *, shards=False, seed=0):
    """A random LlamaForCausalLM, saved by transformers; with ``shards`` in several files."""
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**LLAMA, attn_implementation='eager')
    )
    parity.randomise(model, seed)
    model.eval().save_pretrained(folder, max_shard_size='20KB' if shards else '1GB')
    return model


def gguf_llama(path):
    """A llama of one layer and 70 byte-level tokens, float32."""
    writer = gguf.GGUFWriter(path, 'llama')
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(70)
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre('gpt-2')
    writer.add_token_list(['<|end|>', *(chr(33 + i) for i in range(68)), '!"'])
    writer.add_token_types([3] + [1] * 69)
    writer.add_token_merges(['! "'])
    writer.add_eos_token_id(0)
    generator = np.random.default_rng(0)
    shapes = {'token_embd': (70, 32), 'output_norm': (32,), 'blk.0.attn_norm': (32,)}
    shapes |= {f'blk.0.attn_{n}': (32, 32) for n in ('q', 'k', 'v', 'output')}
    shapes |= {'blk.0.ffn_norm': (32,), 'blk.0.ffn_gate': (48, 32)}
    shapes |= {'blk.0.ffn_up': (48, 32), 'blk.0.ffn_down': (32, 48)}
    for name, shape in shapes.items():
        writer.add_tensor(f'{name}.weight', generator.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
