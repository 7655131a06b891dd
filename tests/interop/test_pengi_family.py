"""Pengi's parts against msclap's own, in a folder of its layout; as a whole it is unproven."""

import json

import audio_reference
import jax
import numpy as np
import parity
import pytest
import tokenizers
import torch
import transformers
from audio_reference import GPT2, HTSAT, filled, from_config, gpt2, noise, small_htsat, unit
from bare_packages import module
from flax import linen as nn

from alm_jax.interop import pretrained, tensor_files

# Of the package's Swin windows, under newer versions of torch.
pytestmark = pytest.mark.filterwarnings('ignore:torch.meshgrid')
RATE = 44_100
DIM = 24
CLIP = {
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 50,
    'vocab_size': 80,
    'max_position_embeddings': 20,
    'eos_token_id': 79,
}
CONFIG = {
    'd_proj': DIM,
    'out_emb': 16,
    'duration': 1,
    'prefix_length': 3,
    'prefix_length_clip': 4,
    'num_layers': 4,
    'audio_config': HTSAT,
    'text_config': {**CLIP, 'projection_dim': 28},
    'decoder_config': GPT2,
}


def published(htsat=None, d_proj=DIM, audio=16, text=28, clip=None, decoder=None, prefix=(3, 4, 2)):
    """msclap's encoders and mappers and transformers' decoder, named as in Pengi's layout."""
    models = module('msclap.models.clap', 'torchlibrosa')
    mapper = module('msclap.models.mapper', 'torchlibrosa')
    vision = {'hidden_size': 8, 'num_hidden_layers': 1, 'num_attention_heads': 1}
    config = transformers.CLIPConfig(
        text_config=clip or CLIP,
        vision_config={**vision, 'intermediate_size': 8},
        projection_dim=text,
        attn_implementation='eager',
    )
    models.AutoModel = from_config(lambda: transformers.CLIPModel(config))
    whole = torch.nn.Module()
    arguments = (RATE, 1024, 320, 64, 50, 14_000, 527)
    whole.audio_encoder = models.AudioEncoder('HTSAT', audio, d_proj, *arguments)
    if htsat is not None:
        whole.audio_encoder.base.htsat = htsat
    whole.caption_encoder = models.TextEncoder(d_proj, 'clip', text)
    whole.caption_decoder = torch.nn.Module()
    whole.caption_decoder.gpt = gpt2(transformers.GPT2LMHeadModel, **(decoder or {}))
    width = whole.caption_decoder.gpt.config.n_embd
    length, clip_length, depth = prefix
    for name in ('audio_project', 'text_project'):
        made = mapper.TransformerMapper(d_proj, width, length, clip_length, depth)
        setattr(whole.caption_decoder, name, made)
    audio_reference.settle(whole)
    return whole.eval()


def loaded(reference, folder, config):
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    tensor_files.write(folder, tensors)
    (folder / 'config.json').write_text(json.dumps({'model_type': 'pengi', **config}))
    for name in ('tokenizer.json', 'prompt_tokenizer.json'):
        words = {f'w{i}': i for i in range(79)} | {'<|endoftext|>': 79}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='w1'))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        tokenizer.save(str(folder / name))
    return pretrained.from_pretrained(folder)


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    torch.manual_seed(0)
    reference = published(small_htsat(), clip=CLIP, decoder=GPT2)
    return loaded(reference, tmp_path_factory.mktemp('pengi'), CONFIG), reference


def check(model, reference, duration, end, steps):
    """Two prompts of unequal length about two clips: every part, and greedy answers."""
    first, second = noise(duration * RATE // 3, duration * RATE)
    x = torch.tensor(np.stack([filled(clip, duration * RATE) for clip in (first, second)]))
    ids, mask = parity.padded([[5, 6, 7, 8, end], [12, end]], 6)
    prompts = {'input_ids': torch.tensor(ids).long(), 'attention_mask': torch.tensor(mask).long()}
    decoder = reference.caption_decoder
    with torch.no_grad():
        heard = reference.audio_encoder(x)[0]
        asked = reference.caption_encoder(prompts)
        prefixes = decoder.audio_project(unit(heard)), decoder.text_project(unit(asked))
    length = prefixes[0].shape[1]
    mel = np.concatenate([model.features(clip)[0] for clip in (first, second)])
    variables = {'params': model.params, **model.extra}
    ours = jax.jit(model.module.apply)(variables, mel, ids, mask, ids[:, :3])
    with torch.no_grad():
        text = decoder.gpt.transformer.wte(torch.tensor(ids[:, :3]).long())
        logits = decoder.gpt(inputs_embeds=torch.cat([*prefixes, text], dim=1)).logits
        start = torch.cat([*prefixes, text[:1, :1].expand(2, -1, -1)], dim=1)
        greedy = decoder.gpt.generate(
            inputs_embeds=start,
            attention_mask=torch.ones(start.shape[:2]).long(),
            max_new_tokens=steps,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    parity.check(
        {
            'audio embedding': (ours['audio_embedding'], heard),
            'text embedding': (ours['text_embedding'], asked),
            'audio prefix': (ours['prefix'][:, :length], prefixes[0]),
            'text prefix': (ours['prefix'][:, length:], prefixes[1]),
            'logits': (ours['logits'], logits),
        }
    )
    got = model._continued(np.asarray(ours['prefix']), steps, (), [int(ids[0, 0])])
    assert got == greedy.tolist()


def test_parts_and_answers(pair):
    check(*pair, duration=1, end=79, steps=20)


@pytest.mark.parametrize('part', ['audio', 'text'])
def test_input_gradient_of_a_mapper(pair, part):
    """Of the answers' logits with respect to what one mapper takes."""
    model, reference = pair
    decoder = reference.caption_decoder
    rng = np.random.default_rng(1)
    embedding = rng.normal(size=(2, DIM)).astype(np.float32)
    target = rng.normal(size=(2, 3, GPT2['vocab_size'])).astype(np.float32)
    mapper = f'{part}_mapper'

    def answer(module, embedding):
        prefix = getattr(module, mapper)(embedding)
        return module.decoder(embeddings_btd=prefix)['logits']

    def ours(x):
        return nn.apply(answer, model.module)({'params': model.params}, x)

    def theirs(x):
        return decoder.gpt(inputs_embeds=getattr(decoder, f'{part}_project')(x)).logits

    parity.check_input_gradient(jax.jit(ours), theirs, embedding, target)


def test_waveforms_and_prompts_to_answers(pair):
    """Prompts of unequal length are padded, and each answers for its own clip."""
    model, _ = pair
    clips, prompts = noise(20_000, 50_000), ['w5 w6 <|endoftext|>', 'w7 <|endoftext|>']
    options = {'sampling_rate': RATE, 'text': 'w3', 'max_tokens': 6}
    together = model.generate(clips, prompts, **options)
    swapped = model.generate(clips[::-1], prompts[::-1], **options)
    assert together == swapped[::-1]
    assert all(answer.split()[0].startswith('w') for answer in together)
    with pytest.raises(ValueError, match='1 prompts for 2 clips'):
        model.generate(clips, prompts[:1], **options)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    model, reference = pair
    parity.check_round_trip(model, tmp_path / 'again')
    again = tensor_files.TensorFiles(tmp_path / 'again')
    state = {name: torch.tensor(again[name]) for name in again}
    assert not reference.load_state_dict(state, strict=False).unexpected_keys
    assert (tmp_path / 'again/prompt_tokenizer.json').is_file()


@pytest.mark.slow_local
def test_published_sizes(tmp_path):
    torch.manual_seed(0)
    clip = transformers.CLIPTextConfig(eos_token_id=49407).to_dict()
    reference = published(None, 1024, 768, 512, clip, {}, (40, 40, 4))
    model = loaded(reference, tmp_path, {})
    check(model, reference, 7, 49407, steps=20)
