"""Language models against transformers: Llama, Mistral, Qwen, Gemma and GPT-2 folders."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from alm_jax.config import ConfigError
from alm_jax.interop import families, pretrained

SIZE = {
    'hidden_size': 48,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'intermediate_size': 80,
    'vocab_size': 90,
    'max_position_embeddings': 64,
    'bos_token_id': None,
    'eos_token_id': None,
    'pad_token_id': 0,
}
GPT2 = {
    'n_embd': 48,
    'n_layer': 2,
    'n_head': 4,
    'n_positions': 64,
    'vocab_size': 90,
    'bos_token_id': None,
    'eos_token_id': None,
    'pad_token_id': 0,
}
LLAMA3 = {
    'rope_type': 'llama3',
    'rope_theta': 500.0,
    'factor': 4.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 32,
}
YARN = {
    'rope_type': 'yarn',
    'rope_theta': 10_000.0,
    'factor': 4.0,
    'original_max_position_embeddings': 32,
}
GEMMA = {**SIZE, 'head_dim': 16}
FAMILIES = {
    'llama': (
        'Llama',
        {**SIZE, 'attention_bias': True, 'mlp_bias': True, 'rope_parameters': LLAMA3},
    ),
    'mistral': (
        'Mistral',
        {**SIZE, 'sliding_window': 4, 'head_dim': 16, 'tie_word_embeddings': True},
    ),
    'qwen2': (
        'Qwen2',
        {**SIZE, 'use_sliding_window': True, 'sliding_window': 3, 'max_window_layers': 1},
    ),
    'qwen3': ('Qwen3', {**SIZE, 'head_dim': 16, 'rope_parameters': YARN}),
    'gemma': ('Gemma', GEMMA),
    'gemma2': ('Gemma2', {**GEMMA, 'sliding_window': 4, 'query_pre_attn_scalar': 10}),
    'gemma3': (
        'Gemma3',
        {**GEMMA, 'sliding_window': 4, 'query_pre_attn_scalar': 10, 'sliding_window_pattern': 2},
    ),
    'gpt2': ('GPT2', GPT2),
}
PUBLISHED = {
    'SmolLM2-135M': (
        'Llama',
        {
            'hidden_size': 576,
            'num_hidden_layers': 30,
            'num_attention_heads': 9,
            'num_key_value_heads': 3,
            'intermediate_size': 1536,
            'vocab_size': 49152,
            'tie_word_embeddings': True,
            'rms_norm_eps': 1e-5,
            'max_position_embeddings': 8192,
            'rope_parameters': {'rope_type': 'default', 'rope_theta': 100_000.0},
        },
    ),
    'Qwen2.5-0.5B': (
        'Qwen2',
        {
            'hidden_size': 896,
            'num_hidden_layers': 24,
            'num_attention_heads': 14,
            'num_key_value_heads': 2,
            'intermediate_size': 4864,
            'vocab_size': 151936,
            'tie_word_embeddings': True,
            'rope_parameters': {'rope_type': 'default', 'rope_theta': 1_000_000.0},
        },
    ),
    'gpt2': ('GPT2', {}),
}
IDS = [[5, 6, 7, 8, 9, 10, 11, 12, 14], [12, 3], [20, 21, 22, 23]]
LENGTH = 12


def reference_of(name, kind, options):
    config_name = 'Gemma3TextConfig' if name == 'gemma3' else f'{kind}Config'
    config = getattr(transformers, config_name)(**options, attn_implementation='eager')
    head = 'LMHeadModel' if name == 'gpt2' else 'ForCausalLM'
    torch.manual_seed(0)
    return getattr(transformers, f'{kind}{head}')(config)


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Torch's threads wait for each other longer than models this small take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module', params=FAMILIES)
def pair(request, tmp_path_factory):
    reference = reference_of(request.param, *FAMILIES[request.param])
    return parity.saved(reference, tmp_path_factory.mktemp(request.param)), reference


def check_intermediates(model, reference, ids, mask):
    """Every intermediate, then the gradient with respect to the embeddings; one program."""
    rng = np.random.default_rng(0)
    target = rng.standard_normal((*ids.shape, reference.config.vocab_size)).astype(np.float32)
    target *= mask[..., None]

    @jax.jit
    def run(params, ids, x, mask, target):
        apply = functools.partial(model.module.apply, {'params': params})

        def loss(x):
            outputs = apply(None, mask, embeddings_btd=x)
            return jnp.sum(outputs['logits'] * target), outputs

        (_, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(x)
        return apply(ids, mask)['embeddings'], outputs, gradient

    theirs_ids, theirs_mask = torch.tensor(ids).long(), torch.tensor(mask).long()
    x = reference.get_input_embeddings()(theirs_ids).detach().requires_grad_()
    theirs = reference(
        inputs_embeds=x, attention_mask=theirs_mask, output_hidden_states=True, use_cache=False
    )
    (theirs.logits * torch.tensor(target)).sum().backward()
    embeddings, ours, gradient = run(model.params, ids, x.detach().numpy(), mask, target)
    hidden = theirs.hidden_states
    pairs = {f'layer {i}': (ours['hidden'][i], h) for i, h in enumerate(hidden[1:-1])}
    pairs |= {
        'embeddings': (embeddings, hidden[0]),
        'tokens': (ours['tokens'], hidden[-1]),
        'logits': (ours['logits'], theirs.logits),
        'input gradient': (gradient, x.grad),
    }
    return parity.check(pairs, dict.fromkeys(pairs, mask))


def check_generation(model, reference, prompts, count=20):
    """Greedy tokens of prompts of unequal length; transformers pads them in front."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[i >= longest - len(p) for i in range(longest)] for p in prompts])
    theirs = reference.generate(
        ids, attention_mask=mask.long(), max_new_tokens=count, do_sample=False
    )[:, longest:]
    assert model.generate_ids(prompts, max_tokens=count) == theirs.tolist()


def test_every_intermediate_and_the_gradient_of_a_padded_batch(pair):
    check_intermediates(*pair, *parity.padded(IDS, LENGTH))


def test_twenty_greedy_tokens(pair):
    check_generation(*pair, IDS)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    parity.check_round_trip(pair[0], tmp_path / 'again')
    again = type(pair[1]).from_pretrained(tmp_path / 'again')
    for name, tensor in pair[1].state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize('name', ['llama', 'gpt2'])
def test_a_bare_model_has_no_logits(name, tmp_path):
    kind, options = FAMILIES[name]
    reference = getattr(transformers, f'{kind}Model')(
        getattr(transformers, f'{kind}Config')(**options)
    )
    model = parity.saved(reference, tmp_path / 'saved')
    assert model.module.size.head == 'none'
    parity.check_round_trip(model, tmp_path / 'again')


def test_openai_gpt2_has_the_bare_names(tmp_path):
    """Its folder says GPT2LMHeadModel, and stores masks."""
    _, options = FAMILIES['gpt2']
    bare = transformers.GPT2Model(transformers.GPT2Config(**options))
    parity.saved(bare, tmp_path / 'bare')
    config = json.loads((tmp_path / 'bare' / 'config.json').read_text())
    config['architectures'] = ['GPT2LMHeadModel']
    (tmp_path / 'bare' / 'config.json').write_text(json.dumps(config))
    file = tmp_path / 'bare' / 'model.safetensors'
    tensors = load_file(file) | {'h.0.attn.bias': np.ones((1, 1, 64, 64), np.float32)}
    save_file(tensors, file)
    model = pretrained.from_pretrained(tmp_path / 'bare')
    assert model.module.size.head == 'tied'


@pytest.mark.parametrize(
    ('kind', 'key', 'value'),
    [
        ('gpt2', 'scale_attn_by_inverse_layer_idx', True),
        ('gpt2', 'activation_function', 'mish'),
        ('llama', 'hidden_act', 'mish'),
        ('llama', 'rope_scaling', {'rope_type': 'longrope', 'factor': 2.0}),
        ('gemma', 'use_bidirectional_attention', True),
    ],
)
def test_what_is_not_supported_is_named(kind, key, value):
    family = families.find(kind, 'here')
    with pytest.raises(ConfigError, match=key.removesuffix('_scaling')):
        family.shapes({key: value})


@pytest.mark.slow_local
@pytest.mark.parametrize('name', PUBLISHED)
def test_published_size(name, tmp_path):
    kind, options = PUBLISHED[name]
    ends = {'bos_token_id': None, 'eos_token_id': None, 'pad_token_id': 0}
    reference = reference_of(name, kind, {**options, **ends})
    model = parity.saved(reference, tmp_path / 'saved')
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 50_000 if name == 'gpt2' else 49_000, n).tolist() for n in (40, 7)]
    check_intermediates(model, reference, *parity.padded(prompts, 48))
    check_generation(model, reference, prompts)
