"""Audio Flamingo 3 folders against transformers: model, processor, and what is generated."""

import dataclasses

import audio_lm_checks as checks
import numpy as np
import parity
import pytest
import torch
import transformers

ENCODER = {
    **checks.ENCODER,
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'intermediate_size': 64,
}
MASK = 'input_features_mask'


def reference_of(encoder, text):
    config = transformers.AudioFlamingo3Config(
        audio_config=encoder,
        text_config=text,
        audio_token_id=checks.AUDIO_ID,
        attn_implementation='eager',
    )
    torch.manual_seed(0)
    return transformers.AudioFlamingo3ForConditionalGeneration(config)


@pytest.fixture(scope='module')
def trio(tmp_path_factory):
    """(ours, theirs, their processor)."""
    reference = reference_of(ENCODER, checks.TEXT)
    folder = tmp_path_factory.mktemp('audio_flamingo3')
    model, extractor, tokenizer = checks.saved(reference, folder, '<sound>')
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token='w0')
    return model, reference, transformers.AudioFlamingo3Processor(extractor, fast)


def test_every_intermediate_and_the_gradient_of_a_padded_batch(trio):
    checks.check_intermediates(*trio[:2], checks.batch(trio[0].module), MASK)


def test_it_is_written_as_it_was_read(trio, tmp_path):
    checks.check_round_trip(*trio[:2], tmp_path / 'again')


def test_waveforms_and_prompts(trio):
    """As the processor has them, and what it makes of them; one clip is four windows."""
    model, reference, processor = trio
    clips = checks.clips()
    prompts = ['w5 w6 <sound> w7', 'w9 w10 w11']  # the second gets a place in front
    texts = [prompts[0], f'<sound>{prompts[1]}']
    given = processor(text=texts, audio=clips, sampling_rate=16_000, padding=True)
    theirs = reference.generate(**given, max_new_tokens=20, do_sample=False)
    theirs = theirs[:, given['input_ids'].shape[1] :]
    ours = model.generate(clips, prompts, sampling_rate=16_000, max_tokens=20)
    assert ours == processor.batch_decode(theirs)
    assert ours[0] != ours[1]
    heard = [model.windows(clip) for clip in clips]
    mel = np.concatenate([windows.mel_wtf for windows in heard])
    parity.check({'log-mel': (mel, given['input_features'].transpose(1, 2))})
    counts = [windows.num_frames_w.tolist() for windows in heard]
    assert counts == [[200, 200, 200, 26], [63]]
    assert given[MASK].sum(axis=1).tolist() == [*counts[0], *counts[1]]
    ready = {name: value.numpy() for name, value in given.items()}
    ready['features_mask'] = ready.pop(MASK)
    assert model.generate_ids(**ready, max_tokens=20) == theirs.tolist()


def test_the_front_end_in_todays_processor_config(trio, tmp_path):
    model, _, processor = trio
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / 'preprocessor_config.json').exists()
    assert dataclasses.replace(model, folder=tmp_path).features == model.features


@pytest.mark.slow_local
def test_published_widths(tmp_path):
    """audio-flamingo-3 with 2 of 32 and 1 of 28 layers, and 8,000 of 151,672 tokens."""
    encoder = {'num_hidden_layers': 2}
    text = {
        **checks.TEXT,
        'hidden_size': 3584,
        'intermediate_size': 18_944,
        'num_hidden_layers': 1,
        'num_attention_heads': 28,
        'num_key_value_heads': 4,
        'rope_parameters': {'rope_type': 'default', 'rope_theta': 1_000_000.0},
        'vocab_size': 8000,
    }
    checks.check_published(lambda: reference_of(encoder, text), tmp_path, MASK)
