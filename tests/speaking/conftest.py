"""A small random audio language model, as a folder that users may have."""

import json
import os
import subprocess
import sys

import flax.traverse_util
import jax
import numpy as np
import pytest
import soundfile
import tokenizers

from alm_jax.interop import families, pretrained
from alm_jax.speaking.speaker import load_speaker

SECONDS = 2  # of the encoder's window
RATE = 16_000
WORDS = (
    'a the dog cat door rain fire water barks falls opens loud soft far near and then one two no'
)
TURN = "{{ '<|im_start|>' + m['role'] + '\\n' }}"
PART = "{% if p['type'] == 'audio' %}<|AUDIO|>{% else %}{{ p['text'] }}{% endif %}"
TEMPLATE = (
    '{% for m in messages %}' + TURN + "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}" + PART + '{% endfor %}{% endif %}<|im_end|>\n{% endfor %}'
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def save_audio_lm(folder, template=''):
    """A Qwen2-Audio of random weights that are large enough for every clip to count."""
    words = ['<|endoftext|>', '<|AUDIO|>', '<|im_start|>', '<|im_end|>', '?', *WORDS.split()]
    encoder = {'d_model': 32, 'encoder_layers': 2, 'encoder_attention_heads': 4}
    encoder |= {'encoder_ffn_dim': 64, 'num_mel_bins': 16, 'max_source_positions': 50 * SECONDS}
    text = {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4}
    text |= {'num_key_value_heads': 2, 'intermediate_size': 64, 'vocab_size': len(words)}
    config = {'model_type': 'qwen2_audio', 'audio_config': encoder, 'audio_token_index': 1}
    config |= {'text_config': text}  # without an end, texts are as long as they may be
    family = families.find('qwen2_audio', 'here')
    module, shapes = family.shapes(config)
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        scale = 1.0 if path[-1] == 'scale' else 0.0
        return (scale + rng.normal(0, 0.25, leaf.shape)).astype(np.float32)

    flat = flax.traverse_util.flatten_dict(shapes)
    params = flax.traverse_util.unflatten_dict({p: drawn(p, leaf) for p, leaf in flat.items()})
    model = family.model(folder, config, module, jax.tree.map(jax.numpy.asarray, params), {})
    pretrained.save_pretrained(model, folder)
    extractor = {'feature_size': 16, 'chunk_length': SECONDS, 'sampling_rate': RATE}
    extractor |= {'n_fft': 400, 'hop_length': 160}
    (folder / 'preprocessor_config.json').write_text(json.dumps(extractor))
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token='?')
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(words[:4])
    tokenizer.save(str(folder / 'tokenizer.json'))
    if template:
        settings = {'chat_template': template, 'eos_token': '<|endoftext|>'}
        (folder / 'tokenizer_config.json').write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope='session')
def audio_lm(tmp_path_factory):
    """The folder of a model without a chat template."""
    return save_audio_lm(tmp_path_factory.mktemp('models') / 'small-audio-lm')


@pytest.fixture(scope='session')
def chat_lm(tmp_path_factory):
    """The same with one."""
    return save_audio_lm(tmp_path_factory.mktemp('models') / 'small-chat-lm', TEMPLATE)


@pytest.fixture(scope='session')
def speaker(audio_lm):
    return load_speaker(audio_lm)


@pytest.fixture(scope='session')
def chatting(chat_lm):
    return load_speaker(chat_lm)


@pytest.fixture(scope='session')
def run():
    """(program of alm_jax, arguments) -> what it printed, and its exit code."""

    def start(name, *arguments, said='', **environment):
        return subprocess.run(
            [sys.executable, '-m', f'alm_jax.{name}', *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            input=said,
            env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
        )

    return start


@pytest.fixture(scope='session')
def noises(tmp_path_factory):
    """Ten WAV files of unlike noise, 0.5 to 1.4 s."""
    folder = tmp_path_factory.mktemp('noises')
    rng = np.random.default_rng(1)
    for i in range(10):
        time = np.arange(int(RATE * (0.5 + 0.1 * i))) / RATE
        tone = np.sin(2 * np.pi * 150 * (i + 1) * time)
        noise = 0.3 * tone + 0.05 * rng.standard_normal(len(time))
        soundfile.write(folder / f'{i}.wav', noise, RATE)
    return folder
