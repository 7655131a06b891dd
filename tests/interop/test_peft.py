"""Adapters of the PEFT library, both ways, on small models of transformers."""

import dataclasses
import json

import bare_packages
import jax
import numpy as np
import parity
import pytest
import small_models
import torch
import transformers

import alm_jax
from alm_jax.adapters import prompts
from alm_jax.adapters.lora import Lora
from alm_jax.config import ConfigError
from alm_jax.interop import peft as ours
from alm_jax.interop import peft_prompts

# What peft asks of transformers.
pytestmark = pytest.mark.filterwarnings('ignore:.*deprecated and will be removed:FutureWarning')
IDS = np.array([[3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14]])
ALL = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
OPTIONS = {
    'lora': {'target_modules': ['q_proj', 'v_proj'], 'r': 4, 'lora_alpha': 8},
    'dora': {'target_modules': ALL, 'r': 3, 'lora_alpha': 5, 'use_dora': True},
    'some layers': {
        'target_modules': ['q_proj', 'down_proj'],
        'layers_to_transform': [0, 2],
        'r': 4,
        'lora_alpha': 8,
        'use_rslora': True,
    },
}


@pytest.fixture(scope='module')
def peft():
    return bare_packages.whole('peft', 'accelerate')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('base') / 'llama'
    small_models.llama(path)
    return path


@pytest.fixture(scope='module')
def model(folder):
    return alm_jax.load(folder)


@pytest.fixture(scope='module')
def apply(model):
    return jax.jit(lambda params: model.module.apply({'params': params}, IDS)['logits'])


def base(folder):
    return transformers.LlamaForCausalLM.from_pretrained(folder, attn_implementation='eager').eval()


def random(adapted):
    """Every part of an adapter off its start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if 'lora_' in name or 'prompt' in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return adapted.eval()


def logits(adapted):
    with torch.no_grad():
        return adapted(torch.tensor(IDS)).logits


@pytest.mark.parametrize('name', OPTIONS)
def test_their_adapter_here_and_ours_there(peft, folder, model, apply, tmp_path, name):
    config = peft.LoraConfig(**OPTIONS[name], task_type='CAUSAL_LM', init_lora_weights=True)
    theirs = random(peft.get_peft_model(base(folder), config))
    theirs.save_pretrained(tmp_path / 'theirs')
    lora, adapters = ours.read(model, tmp_path / 'theirs')
    expected = logits(theirs)
    assert parity.error(apply(model.params), expected) > 0.01
    parity.check({name: (apply(lora.apply(model.params, adapters)), expected)})
    ours.write(model, lora, adapters, tmp_path / 'ours')
    again = peft.PeftModel.from_pretrained(base(folder), tmp_path / 'ours').eval()
    assert torch.equal(logits(again), expected)
    _, arrays = ours.read(model, tmp_path / 'ours')
    jax.tree.map(np.testing.assert_array_equal, arrays, adapters)


def test_a_fresh_one_of_ours_there(peft, folder, model, apply, tmp_path):
    lora = Lora((r'attn/out/kernel', r'layers/1/mlp'), rank=2, alpha=3, dora=True)
    fresh = lora.init(jax.random.key(0), model.params)
    moved = jax.tree.map(lambda x: x + 0.1, fresh)
    ours.write(model, lora, moved, tmp_path / 'ours')
    theirs = peft.PeftModel.from_pretrained(base(folder), tmp_path / 'ours').eval()
    adapted = dataclasses.replace(model, params=lora.apply(model.params, moved))
    parity.check({'logits': (apply(adapted.params), logits(theirs))})
    with pytest.raises(ConfigError, match='is not empty'):
        ours.write(model, lora, moved, tmp_path / 'ours')


def test_a_fused_layer_of_gpt2(peft, tmp_path):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=24, vocab_size=40, attn_implementation='eager'
    )
    reference = transformers.GPT2LMHeadModel(config)
    parity.randomise(reference)
    reference.eval().save_pretrained(tmp_path / 'gpt2')
    model = alm_jax.load(tmp_path / 'gpt2')
    config = peft.LoraConfig(target_modules=['c_attn', 'c_fc'], r=2, task_type='CAUSAL_LM')
    config.fan_in_fan_out = True
    theirs = random(peft.get_peft_model(reference, config))
    theirs.save_pretrained(tmp_path / 'theirs')
    lora, adapters = ours.read(model, tmp_path / 'theirs')
    changed = model.module.apply({'params': lora.apply(model.params, adapters)}, IDS)
    parity.check({'logits': (changed['logits'], logits(theirs))})
    with pytest.raises(ConfigError, match=r'is a part of transformer\.h\.0\.attn\.c_attn'):
        ours.write(model, lora, adapters, tmp_path / 'ours')


def test_prompt_and_prefix_tuning(peft, folder, model, tmp_path):
    config = peft.PromptTuningConfig(task_type='CAUSAL_LM', num_virtual_tokens=3)
    theirs = random(peft.get_peft_model(base(folder), config))
    theirs.save_pretrained(tmp_path / 'prompt')
    prompt = peft_prompts.read(model, tmp_path / 'prompt')
    given = prompts.with_prompt(prompt, IDS, IDS > 0)
    pairs = {'prompt': (model(**given)['logits'], logits(theirs))}

    config = peft.PrefixTuningConfig(task_type='CAUSAL_LM', num_virtual_tokens=3)
    theirs = random(peft.get_peft_model(base(folder), config))
    theirs.save_pretrained(tmp_path / 'prefix')
    prefix = peft_prompts.read(model, tmp_path / 'prefix')
    cache = prompts.with_prefix(model.module, prefix, *IDS.shape)
    pairs['prefix'] = (model(IDS, IDS > 0, cache=cache)['logits'], logits(theirs))
    parity.check(pairs)

    for name, learned in (('prompt', prompt), ('prefix', prefix)):
        peft_prompts.write(model, learned, tmp_path / f'our {name}')
        again = peft.PeftModel.from_pretrained(base(folder), tmp_path / f'our {name}').eval()
        parity.check({name: (logits(again)[:, -6:], pairs[name][1][:, -6:])})
    with pytest.raises(ConfigError, match="peft_type 'PREFIX_TUNING' is not read; 'LORA' is"):
        ours.read(model, tmp_path / 'prefix')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'peft_type': 'IA3'}, "peft_type 'IA3' is not read"),
        ({'bias': 'all'}, "bias 'all' is not read"),
        ({'rank_pattern': {'q_proj': 2}}, 'rank_pattern'),
        ({'r': 5}, r'lora_a of layers/0/attn/query/kernel is \(32, 4\); expected \(32, 5\)'),
        ({'use_dora': True}, 'magnitude of layers/0/attn/query/kernel is nothing'),
    ],
)
def test_what_is_not_read(model, tmp_path, change, message):
    lora = Lora((r'attn/query/kernel',), rank=4)
    ours.write(model, lora, lora.init(jax.random.key(0), model.params), tmp_path / 'x')
    file = tmp_path / 'x' / 'adapter_config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match=message):
        ours.read(model, tmp_path / 'x')


def test_tensors_without_a_place(model, tmp_path):
    lora = Lora((r'attn/query/kernel',), rank=4)
    ours.write(model, lora, lora.init(jax.random.key(0), model.params), tmp_path / 'x')
    bare = dataclasses.replace(model, config={**model.config})
    (tmp_path / 'x' / 'adapter_config.json').unlink()
    with pytest.raises(ConfigError, match=r'adapter_config\.json cannot be read'):
        ours.read(bare, tmp_path / 'x')
