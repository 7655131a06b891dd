"""Voxtral folders against transformers: model, front end, and what is generated."""

import audio_lm_checks as checks
import numpy as np
import parity
import pytest
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
    checks.check_intermediates(*trio[:2], checks.batch(trio[0], FULL), None)


def test_twenty_greedy_tokens_of_ready_inputs(trio):
    checks.check_generation(*trio[:2], checks.batch(trio[0], FULL), None)


def test_it_is_written_as_it_was_read(trio, tmp_path):
    checks.check_round_trip(*trio[:2], tmp_path / 'again')


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
    checks.check_published(reference_of({'num_hidden_layers': 2}, text), tmp_path, None)
