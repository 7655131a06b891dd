"""Qwen2-Audio folders against transformers: model, processor, and what is generated."""

import audio_lm_checks as checks
import numpy as np
import parity
import pytest
import torch
import transformers

from alm_jax.config import ConfigError
from alm_jax.interop import audio_lm, families

ENCODER = {
    **checks.ENCODER,
    'd_model': 32,
    'encoder_layers': 2,
    'encoder_attention_heads': 4,
    'encoder_ffn_dim': 64,
}
MASK = 'feature_attention_mask'


def reference_of(encoder, text):
    config = transformers.Qwen2AudioConfig(
        audio_config=encoder,
        text_config=text,
        audio_token_index=checks.AUDIO_ID,
        attn_implementation='eager',
    )
    torch.manual_seed(0)
    return transformers.Qwen2AudioForConditionalGeneration(config)


@pytest.fixture(scope='module')
def trio(tmp_path_factory):
    """(ours, theirs, their processor)."""
    reference = reference_of(ENCODER, checks.TEXT)
    folder = tmp_path_factory.mktemp('qwen2_audio')
    model, extractor, tokenizer = checks.saved(reference, folder, '<|AUDIO|>')
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token='w0')
    fast.padding_side = 'left'
    processor = transformers.Qwen2AudioProcessor(extractor, fast, chat_template='')
    return model, reference, processor


def test_every_intermediate_and_the_gradient_of_a_padded_batch(trio):
    checks.check_intermediates(*trio[:2], checks.batch(trio[0].module), MASK)


def test_twenty_greedy_tokens_of_ready_inputs(trio):
    inputs = checks.batch(trio[0].module)
    checks.check_tokens(trio[0], checks.their_tokens(trio[1], inputs, MASK, 20), inputs, MASK)


def test_it_is_written_as_it_was_read(trio, tmp_path):
    checks.check_round_trip(*trio[:2], tmp_path / 'again')


def test_waveforms_and_prompts(trio):
    """As the processor has them; clips are cut after a window, prompts hold any number."""
    model, reference, processor = trio
    clips = checks.clips()
    prompts = ['w5 <|AUDIO|> w6 w7 <|AUDIO|> w8', 'w9 w10 w11 <|AUDIO|>']
    three = [*clips, clips[0][:20_000]]
    given = processor(
        text=prompts, audio=three, sampling_rate=16_000, return_tensors='pt', padding=True
    )
    theirs = reference.generate(**given, max_new_tokens=20, do_sample=False)
    theirs = processor.batch_decode(theirs[:, given['input_ids'].shape[1] :])
    ours = model.generate(three, prompts, sampling_rate=16_000, max_tokens=20)
    assert ours == theirs
    assert ours[0] != ours[1]
    heard = [model.windows(clip) for clip in three]
    mel = np.concatenate([windows.mel_wtf for windows in heard])
    parity.check({'log-mel': (mel, given['input_features'].transpose(1, 2))})
    counts = [windows.num_frames_w.item() for windows in heard]
    assert counts == given[MASK].sum(axis=1).tolist() == [200, 63, 125]


def test_what_is_behind_a_clip_need_not_be_computed(trio, monkeypatch):
    model, *_ = trio
    windows = [model.windows(checks.clips()[1])]
    whole = model.listen(windows)[0]
    monkeypatch.setattr(audio_lm, 'LENGTH_STEP', 5)
    assert whole.shape == (16, 48)
    assert np.abs(model.listen(windows)[0] - whole).max() <= 1e-5


def test_other_language_models_are_named():
    family = families.find('qwen2_audio', 'here')
    with pytest.raises(ConfigError, match=r'text_config\.model_type'):
        family.module({'text_config': {'model_type': 'gpt2'}})


def test_prompts_without_a_place(trio):
    """They get one in front; one prompt is asked of every clip."""
    model, *_ = trio
    clips, prompt = checks.clips(), 'w5 w6 ' * 15
    asked = model.generate(clips, prompt, sampling_rate=16_000, max_tokens=20)
    prompts = [f'<|audio_bos|><|AUDIO|><|audio_eos|>{prompt}'] * 2
    assert asked == model.generate(clips, prompts, sampling_rate=16_000, max_tokens=20)
    assert asked[0] != asked[1]
    with pytest.raises(ConfigError, match='2 clips for 3 places in 1 prompts'):
        model.generate(clips, ['w5' + ' <|AUDIO|>' * 3], sampling_rate=16_000)
    with pytest.raises(ConfigError, match='a clip of 100 samples is too short'):
        model.generate(clips[0][:100], sampling_rate=16_000)
    with pytest.raises(ConfigError, match='places for audio; input_features give'):
        model.generate_ids(np.full((1, 3), checks.AUDIO_ID), np.zeros((1, 16, 200)))


@pytest.mark.slow_local
def test_published_widths(tmp_path):
    """Qwen2-Audio-7B with 2 of 32 and 1 of 32 layers, and 8,000 of 156,032 tokens."""
    encoder = {'d_model': 1280, 'encoder_attention_heads': 20, 'encoder_ffn_dim': 5120}
    text = {
        **checks.TEXT,
        'hidden_size': 4096,
        'intermediate_size': 11_008,
        'num_hidden_layers': 1,
        'num_attention_heads': 32,
        'num_key_value_heads': 32,
        'rms_norm_eps': 1e-5,
        'vocab_size': 8000,
    }
    encoder |= {'encoder_layers': 2, 'num_mel_bins': 128}
    checks.check_published(lambda: reference_of(encoder, text), tmp_path, MASK)
