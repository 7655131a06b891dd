"""MS-CLAP folders of 2022, 2023 and ClapCap against msclap's own modules."""

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
from alm_jax.models import clapcap

# Of the package's Swin windows, under newer versions of torch.
pytestmark = pytest.mark.filterwarnings('ignore:torch.meshgrid')
RATE = 44_100
DIM = 24
WIDTHS = (8, 8, 8, 8, 8, 16)
BERT = {
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 50,
    'vocab_size': 80,
}
SMALL_2023 = {'d_proj': DIM, 'out_emb': 16, 'duration': 1}  # of audio: 138 of the 256 frames
SMALL_2022 = {'d_proj': DIM, 'out_emb': 40, 'duration': 1}
SMALL_CAPTIONER = {**SMALL_2023, 'prefix_length': 3, 'prefix_length_clip': 4, 'num_layers': 2}


def clap(encoder, text, out_emb, text_width, d_proj):
    models = module('msclap.models.clap', 'torchlibrosa')
    models.AutoModel = from_config(lambda: text)
    kind = 'bert-base-uncased' if encoder == 'Cnn14' else 'gpt2'
    arguments = (RATE, 1024, 320, 64, 50, 14_000, 527, out_emb)
    return models.CLAP(encoder, *arguments, kind, text_width, d_proj)


def small_2022():
    bert = transformers.BertModel(transformers.BertConfig(**BERT, attn_implementation='eager'))
    with audio_reference.empty_convolutions():
        reference = clap('Cnn14', bert, SMALL_2022['out_emb'], BERT['hidden_size'], DIM)
    block = module('msclap.models.audio', 'torchlibrosa').ConvBlock
    audio_reference.narrow(reference.audio_encoder.base, block, WIDTHS, SMALL_2022['out_emb'])
    return reference


def small_2023():
    text = gpt2(transformers.GPT2Model, **GPT2)
    reference = clap('HTSAT', text, 16, GPT2['n_embd'], DIM)
    reference.audio_encoder.base.htsat = small_htsat()
    return reference


def captioner(reference, decoder, prefix, clip, size, layers):
    mapper = module('msclap.models.mapper', 'torchlibrosa')
    mapper.GPT2LMHeadModel = from_config(lambda: decoder)
    return mapper.ClapCaptionModel(
        reference, 'gpt2', prefix, clip, size, layers, True, 'transformer'
    )


def small_clapcap():
    text = gpt2(transformers.GPT2LMHeadModel, **GPT2)
    return captioner(small_2023(), text, 3, 4, DIM, 2)


CONFIGS = {
    'msclap_2022': {
        **SMALL_2022,
        'audio_config': {'widths': list(WIDTHS)},
        'text_config': BERT,
    },
    'msclap_2023': {**SMALL_2023, 'audio_config': HTSAT, 'text_config': GPT2},
    'msclap_clapcap': {**SMALL_CAPTIONER, 'audio_config': HTSAT, 'text_config': GPT2},
}
SMALL = {
    'msclap_2022': small_2022,
    'msclap_2023': small_2023,
    'msclap_clapcap': small_clapcap,
}


def loaded(reference, folder, model_type, config, end=70):
    torch.manual_seed(0)
    audio_reference.settle(reference)
    reference.eval()
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    tensor_files.write(folder, tensors)
    (folder / 'config.json').write_text(json.dumps({'model_type': model_type, **config}))
    words = {f'w{i}': i for i in range(end)} | {'<|endoftext|>': end}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='w1'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / 'tokenizer.json'))
    return pretrained.from_pretrained(folder)


@pytest.fixture(scope='module', params=['msclap_2022', 'msclap_2023'])
def pair(request, tmp_path_factory):
    torch.manual_seed(0)
    reference = SMALL[request.param]()
    folder = tmp_path_factory.mktemp(request.param)
    return loaded(reference, folder, request.param, CONFIGS[request.param]), reference


@pytest.fixture(scope='module')
def cap(tmp_path_factory):
    torch.manual_seed(0)
    reference = small_clapcap()
    folder = tmp_path_factory.mktemp('clapcap')
    return loaded(reference, folder, 'msclap_clapcap', CONFIGS['msclap_clapcap']), reference


def mel_of(encoder, x):
    return encoder.logmel_extractor(encoder.spectrogram_extractor(x))


def audio_of(encoder, x):
    """The embedding before and after the projection."""
    with torch.no_grad():
        return encoder.base(x)['embedding'], encoder(x)[0]


def check_audio(model, reference, duration):
    """From waveforms shorter than, and as long as, the window."""
    clips = noise(duration * RATE // 3, duration * RATE)
    x = torch.tensor(np.stack([filled(clip, duration * RATE) for clip in clips]))
    pooled, projected = audio_of(reference.audio_encoder, x)
    mel = np.concatenate([model.features(clip)[0] for clip in clips])
    variables = {'params': model.params['audio']}
    variables |= {name: tree['audio'] for name, tree in model.extra.items()}
    ours = jax.jit(model.module.audio.apply)(variables, mel)
    parity.check(
        {
            'pooled': (ours['pooled'], pooled),
            'embedding': (model.embed_audio(clips, sampling_rate=RATE), unit(projected)),
            'scale': (np.exp(model.params['logit_scale']), reference.logit_scale.exp()),
        }
    )


def check_text(model, reference, length):
    """A padded batch, as the package pads: with id 0. One GPT-2 text has that id within."""
    ids, mask = parity.padded([[5, 6, 7, 8, 2], [12, 2], [30, 0, 31, 32, 33, 34, 2]], length)
    tokens = {'input_ids': torch.tensor(ids).long(), 'attention_mask': torch.tensor(mask).long()}
    text = reference.caption_encoder
    with torch.no_grad():
        hidden = text.base(**tokens, output_hidden_states=True).hidden_states
        embedding = unit(text(tokens))
    variables = {'params': model.params['text']}
    ours = jax.jit(model.module.text.apply)(variables, ids, mask)
    pairs = {'embeddings': (ours['embeddings'], hidden[0]), 'tokens': (ours['tokens'], hidden[-1])}
    masks = dict.fromkeys(pairs, mask)
    embedded = model.embed_text(input_ids=ids, attention_mask=mask)
    pairs['embedding'] = (embedded, embedding)
    parity.check(pairs, masks)
    longer = [np.pad(x, ((0, 0), (0, 16 - length))) for x in (ids, mask)]
    again = model.embed_text(input_ids=longer[0], attention_mask=longer[1])
    assert np.abs(again - embedded).max() <= 1e-5


def test_audio(pair):
    check_audio(*pair, duration=1)


def test_text(pair):
    check_text(*pair, length=9)


def test_texts_are_tokenised_as_the_package_does(pair):
    """GPT-2's texts get their end; what is too long keeps its last token."""
    model, _ = pair
    ids, mask = model._tokens(['w3 w4', ' '.join(['w5'] * 120)])
    gpt2 = model.config['model_type'] == 'msclap_2023'
    assert ids[0, :3].tolist() == [3, 4, 70 if gpt2 else 0]
    assert mask.sum(axis=1).tolist() == ([3, 77] if gpt2 else [2, 100])
    assert ids[1, mask[1]].tolist()[-2:] == ([5, 70] if gpt2 else [5, 5])
    assert model.embed_text(['w3 w4', 'w5', 'w6']).shape == (3, DIM)


def test_a_longer_clip_is_the_mean_of_its_windows(pair):
    model, _ = pair
    first, second = noise(RATE, RATE)
    whole = model.embed_audio(np.concatenate([first, second]), sampling_rate=RATE)
    parts = model.embed_audio([first, second], sampling_rate=RATE).mean(axis=0)
    np.testing.assert_allclose(whole[0], parts / np.linalg.norm(parts), atol=1e-5)


def test_input_gradient(pair):
    model, reference = pair
    rng = np.random.default_rng(1)
    mel = rng.normal(-30, 10, (2, 138, 64)).astype(np.float32)
    target = rng.normal(size=(2, DIM)).astype(np.float32)
    variables = {'params': model.params, **model.extra}
    encoder = reference.audio_encoder
    base = encoder.base if model.config['model_type'] == 'msclap_2022' else encoder.base.htsat

    def ours(x):
        return model.module.apply(variables, x, None, method='embed_audio')

    def theirs(x):
        kept = base.spectrogram_extractor, base.logmel_extractor
        base.spectrogram_extractor = base.logmel_extractor = torch.nn.Identity()
        projected = encoder(x[:, None])[0]
        base.spectrogram_extractor, base.logmel_extractor = kept
        return unit(projected)

    parity.check_input_gradient(jax.jit(ours), theirs, mel, target)


def check_written(model, reference, folder, lacking):
    parity.check_round_trip(model, folder)
    again = tensor_files.TensorFiles(folder)
    state = {name: torch.tensor(again[name]) for name in again}
    found = reference.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    rest = [n for n in found.missing_keys if not any(part in n for part in lacking)]
    assert not rest


LACKING = ('_extractor.', 'num_batches_tracked', 'relative_position_index', 'attn_mask')
LACKING += ('tscam_conv', 'htsat.head', 'base.pooler')


def test_it_is_written_as_it_was_read(pair, tmp_path):
    check_written(*pair, tmp_path / 'again', LACKING)


def check_captioner(model, reference, duration, steps):
    """Logits of padded texts after the prefix, and greedy tokens."""
    (clip,) = noise(duration * RATE // 2)
    x = torch.tensor(filled(clip, duration * RATE))[None].repeat(2, 1)
    x[1] *= torch.linspace(0, 1, x.shape[1])  # another clip
    with torch.no_grad():
        mel = mel_of(reference.clap.base.htsat, x)[:, 0].numpy()
        projected = reference.clap(x)[0]
        prefix = reference.clap_project(unit(projected))
    parity.check({'mel': (model.features(clip)[0], mel[:1])})
    ids, mask = parity.padded([[5, 6, 7, 8], [12, 3]], 4)
    length = prefix.shape[1]
    whole = np.pad(mask, ((0, 0), (length, 0)), constant_values=True)
    tokens = {'input_ids': torch.tensor(ids).long()}
    with torch.no_grad():
        theirs = reference(x, tokens, torch.tensor(whole).long()).logits
        greedy = reference.gpt.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(2, length).long(),
            max_new_tokens=steps,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    variables = {'params': model.params, **model.extra}
    ours = jax.jit(model.module.apply)(variables, mel, ids, mask)
    pairs = {'projected': (ours['projected'], projected), 'prefix': (ours['prefix'], prefix)}
    pairs['logits'] = (ours['logits'], theirs)
    parity.check(pairs, {'logits': whole})
    assert model.generate_ids(mel, max_tokens=steps) == greedy.tolist()


def test_captioner(cap):
    check_captioner(*cap, duration=1, steps=20)


def test_input_gradient_of_the_captioner(cap):
    """Of the logits after a clip's embedding, through its mapper."""
    model, reference = cap
    rng = np.random.default_rng(1)
    embedding = rng.normal(size=(2, DIM)).astype(np.float32)
    ids = np.array([[5, 6, 7], [12, 3, 4]], np.int32)
    shape = (2, 3 + ids.shape[1], GPT2['vocab_size'])
    target = rng.normal(size=shape).astype(np.float32)

    def caption(module, embedding):
        return clapcap.after_prefix(module.decoder, module.mapper(embedding), ids, None)['logits']

    def ours(x):
        return nn.apply(caption, model.module)({'params': model.params}, x)

    def theirs(x):
        text = reference.gpt.transformer.wte(torch.tensor(ids).long())
        whole = torch.cat([reference.clap_project(x), text], dim=1)
        return reference.gpt(inputs_embeds=whole).logits

    parity.check_input_gradient(jax.jit(ours), theirs, embedding, target)


def test_captions_end_at_the_stop_token(cap):
    model, _ = cap
    clips = noise(RATE, RATE // 2)
    mel = np.concatenate([model.features(clip)[0] for clip in clips])
    ids = model.generate_ids(mel, max_tokens=20)
    stop = ids[0][3]
    model.__dict__['_stop_id'] = stop
    captions = model.generate(clips, sampling_rate=RATE, max_tokens=20)
    kept = [row[: row.index(stop)] if stop in row else row for row in ids]
    assert captions == [model.tokenizer.decode(row).strip().capitalize() for row in kept]
    assert len(kept[0]) <= 3


def test_the_captioner_is_written_as_it_was_read(cap, tmp_path):
    check_written(*cap, tmp_path / 'again', (*LACKING, 'lm_head'))


@pytest.mark.slow_local
@pytest.mark.parametrize('model_type', SMALL)
def test_published_size(model_type, tmp_path):
    bert = transformers.BertConfig(attn_implementation='eager')
    if model_type == 'msclap_2022':
        reference = clap('Cnn14', transformers.BertModel(bert), 2048, 768, 1024)
    else:
        reference = clap('HTSAT', gpt2(transformers.GPT2Model), 768, 768, 1024)
    if model_type == 'msclap_clapcap':
        reference = captioner(reference, gpt2(transformers.GPT2LMHeadModel), 40, 40, 1024, 8)
    model = loaded(reference, tmp_path, model_type, {})
    if model_type == 'msclap_clapcap':
        check_captioner(model, reference, 7, steps=20)
        return
    check_audio(model, reference, 5 if model_type == 'msclap_2022' else 7)
    check_text(model, reference, 9)
