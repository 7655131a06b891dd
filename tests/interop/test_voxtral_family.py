"""Voxtral folders against transformers: model, front end, and what is generated."""

import base64
import importlib.resources
import io
import json

import audio_lm_checks as checks
import numpy as np
import parity
import pytest
import soundfile
import torch
import transformers

from alm_jax.config import ConfigError
from alm_jax.interop import families

ENCODER = {
    **checks.ENCODER,
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'intermediate_size': 128,  # four frames, as published
}
TEXT = {**checks.TEXT, 'head_dim': 16}
FULL = np.array([[checks.FRAMES, checks.FRAMES], [checks.FRAMES, 0]])


def reference_of(encoder, text):
    config = transformers.VoxtralConfig(
        audio_config=encoder,
        text_config=text,
        audio_token_id=checks.AUDIO_ID,
        attn_implementation='eager',
    )
    torch.manual_seed(0)
    return transformers.VoxtralForConditionalGeneration(config)


@pytest.fixture(scope='module')
def trio(tmp_path_factory):
    """(ours, theirs, their front end)."""
    reference = reference_of(ENCODER, TEXT)
    folder = tmp_path_factory.mktemp('voxtral')
    model, extractor, _ = checks.saved(reference, folder, '[AUDIO]')
    return model, reference, extractor


def test_every_intermediate_and_the_gradient_of_a_padded_batch(trio):
    checks.check_intermediates(*trio[:2], checks.batch(trio[0].module, FULL), None)


def test_it_is_written_as_it_was_read(trio, tmp_path):
    (trio[0].folder / 'tekken.json').write_text('{}')
    checks.check_round_trip(*trio[:2], tmp_path / 'again')
    assert (tmp_path / 'again' / 'tekken.json').read_text() == '{}'


def test_waveforms_and_prompts(trio):
    """Clips are filled up to whole windows, whose log-mel is that of the whole; two in a prompt."""
    model, reference, extractor = trio
    clips = checks.clips()
    features = []
    for clip in clips:  # as VoxtralProcessor does, with windows of 2 s
        mel = extractor(
            clip,
            sampling_rate=16_000,
            padding=True,
            truncation=False,
            pad_to_multiple_of=32_000,
            return_tensors='pt',
        )['input_features']
        features.append(mel.reshape(checks.MELS, -1, checks.FRAMES).transpose(0, 1))
    features = torch.cat(features)
    assert len(features) == 5
    mel = np.concatenate([model.windows(clip).mel_wtf for clip in clips])
    parity.check({'log-mel': (mel, features.transpose(1, 2))})

    ids = torch.tensor([[5, *[checks.AUDIO_ID] * 100, 6, 7, *[checks.AUDIO_ID] * 25, 8]])
    theirs = reference.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        input_features=features,
        max_new_tokens=20,
        do_sample=False,
    )[0, ids.shape[1] :]
    prompt = 'w5 [AUDIO] w6 w7 [AUDIO] w8'
    ours = model.generate(clips, prompt, sampling_rate=16_000, max_tokens=20)
    assert ours == [' '.join(f'w{i}' for i in theirs.tolist())]
    ready = model.generate_ids(ids.numpy(), features.numpy(), max_tokens=20)
    assert ready == [theirs.tolist()]


def test_a_folder_as_published(tmp_path):
    """tekken.json and windows of 30 s, against the reference's whole processor."""
    library = pytest.importorskip('mistral_common.tokens.tokenizers.tekken').Tekkenizer
    data = importlib.resources.files('mistral_common') / 'data' / 'tekken_240911.json'
    tekken = json.loads(data.read_text())
    named = [dict(token) for token in library.DEPRECATED_SPECIAL_TOKENS]
    more = [f'[OTHER_{i}]' for i in range(len(named), 24)]
    for name in (*more, '[AUDIO]', '[BEGIN_AUDIO]', '[TRANSCRIBE]'):
        named.append({'rank': len(named), 'token_str': name, 'is_control': True})
    tekken['special_tokens'] = named
    tekken['config']['version'] = 'v7'
    tekken['audio'] = {
        'sampling_rate': 16_000,
        'frame_rate': 12.5,
        'audio_encoding_config': {'num_mel_bins': 128, 'hop_length': 160, 'window_size': 400},
        'chunk_length_s': 30.0,
    }
    tekken.pop('image', None)
    config = transformers.VoxtralConfig(
        audio_config={**ENCODER, 'num_mel_bins': 128, 'max_source_positions': 1500},
        text_config={**TEXT, 'hidden_size': 32, 'vocab_size': 131_072},
        audio_token_id=24,
    )
    torch.manual_seed(0)
    reference = transformers.VoxtralForConditionalGeneration(config)
    model = parity.saved(reference, tmp_path / 'saved')
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    extractor.save_pretrained(model.folder)
    (model.folder / 'tekken.json').write_text(json.dumps(tekken))
    backend = transformers.MistralCommonBackend(tokenizer_path=str(model.folder / 'tekken.json'))
    processor = transformers.VoxtralProcessor(extractor, backend)

    clip = checks.clips()[0]
    wave = io.BytesIO()
    soundfile.write(wave, clip, 16_000, format='WAV', subtype='FLOAT')
    spoken = {'type': 'audio', 'base64': base64.b64encode(wave.getvalue()).decode()}
    question = {'type': 'text', 'text': 'What do you hear?'}
    given = processor.apply_chat_template([{'role': 'user', 'content': [spoken, question]}])
    theirs = reference.generate(**given, max_new_tokens=20, do_sample=False)
    theirs = theirs[0, given['input_ids'].shape[1] :].tolist()
    heard = model.windows(clip)
    parity.check({'log-mel': (heard.mel_wtf, given['input_features'].transpose(1, 2))})
    prompt = '[INST][BEGIN_AUDIO][AUDIO]What do you hear?[/INST]'
    ids = model.prompt_ids(prompt)
    assert given['input_ids'][0].tolist() == [*ids[:3], *[24] * 375, *ids[4:]]
    ours = model.generate(clip, prompt, sampling_rate=16_000, max_tokens=20)
    assert ours == [model.tokenizer.decode(theirs)]


def test_frames_that_fill_no_stack_are_named():
    family = families.find('voxtral', 'here')
    with pytest.raises(ConfigError, match='5000 numbers, intermediate_size'):
        family.module({'audio_config': {'intermediate_size': 5000}})


@pytest.mark.slow_local
def test_published_widths(tmp_path):
    """Voxtral-Mini-3B-2507 with 2 of 32 and 1 of 30 layers, and 8,000 of 131,072 tokens."""
    text = {
        **checks.TEXT,
        'hidden_size': 3072,
        'intermediate_size': 8192,
        'num_hidden_layers': 1,
        'num_attention_heads': 32,
        'num_key_value_heads': 8,
        'head_dim': 128,
        'vocab_size': 8000,
    }
    checks.check_published(lambda: reference_of({'num_hidden_layers': 2}, text), tmp_path, None)
