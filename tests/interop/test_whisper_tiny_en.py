"""Whisper tiny.en from its packaged CTranslate2 file, on the English prompts of asterisk.

A few are transcribed where the weights have been prepared (71 MB: alm_jax.prepare
weights/whisper_tiny_en), all of them by hand.
"""

import time

import jiwer
import numpy as np
import pytest
import torch
import transformers
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from alm_jax.audio.decode import from_pcm16
from alm_jax.data import sources
from alm_jax.data.location import data_dir
from alm_jax.interop import pretrained

NAME = 'whisper_tiny_en'
WORDS = 4  # of a prompt at least: a word alone has no context, and one error is all of it
LONG = 30.0  # seconds


@pytest.fixture(scope='module')
def model(weights):
    if not (data_dir() / 'weights' / NAME).is_dir():
        pytest.skip(f'python -m alm_jax.prepare weights/{NAME}')
    return pretrained.from_pretrained(weights(NAME))


@pytest.fixture(scope='module')
def prompts(packaged_tiny):
    """Records of four words or more, the shortest clips first."""
    where = {'kind': ['speech'], 'language': ['en'], 'package': ['asterisk']}
    source = sources.open_source('packaged_sounds/tiny:train+validation+test', packaged_tiny, where)
    records = [source[i] for i in range(len(source))]
    records = [r for r in records if len(r['transcript'].split()) >= WORDS]
    return sorted(records, key=lambda r: r['num_samples'])


def word_error_rate(records, texts):
    """(WER, words of the references) after OpenAI's normaliser for English."""
    normalise = EnglishTextNormalizer({})
    references = [normalise(r['transcript']) for r in records]
    errors = jiwer.process_words(references, [normalise(text) for text in texts])
    return errors.wer, sum(len(reference.split()) for reference in references)


def generate(model, records, **options):
    return model.generate([r['audio'] for r in records], sampling_rate=16_000, **options)


def test_a_few_prompts(model, prompts):
    short = [r for r in prompts if len(r['transcript'].split()) <= 10]  # 40 tokens hold them
    some = short[::40]
    wer, words = word_error_rate(some, generate(model, some, max_tokens=40))
    assert words >= 15
    assert wer <= 0.2


@pytest.mark.slow_local
def test_word_error_rate(model, prompts):
    """All prompts; faster-whisper's on 120 of them was 0.054."""
    start = time.perf_counter(), time.process_time()
    texts = generate(model, prompts)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    wer, words = word_error_rate(prompts, texts)
    seconds = sum(r['duration'] for r in prompts)
    short = [i for i, r in enumerate(prompts) if r['duration'] <= LONG]
    wer_short, _ = word_error_rate([prompts[i] for i in short], [texts[i] for i in short])
    print(
        f'\nWER {wer:.4f} over {len(prompts)} prompts, {words} words, {seconds:.0f} s of speech; '
        f'{wer_short:.4f} over the {len(short)} of one window; {wall:.0f} s wall, {cpu:.0f} s CPU'
    )
    assert wer <= 0.08


@pytest.mark.slow_local
@pytest.mark.parametrize('timestamps', [False, True])
def test_tokens_are_those_of_transformers(model, prompts, timestamps):
    """The same weights, clips and rules; each library with its own front end."""
    some = [r for r in prompts if r['duration'] < LONG][::24]
    reference = transformers.WhisperForConditionalGeneration.from_pretrained(
        model.folder, dtype=torch.float32
    )
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(model.folder)
    clips = [from_pcm16(r['audio']) for r in some]
    mel = extractor(clips, sampling_rate=16_000, return_tensors='pt')['input_features']
    segments = reference.generate(
        mel, max_new_tokens=60, return_timestamps=timestamps, return_segments=True
    )['segments']
    ours = model.generate_ids(
        np.concatenate([model.features(clip) for clip in clips]),
        timestamps=timestamps,
        max_tokens=60,
    )
    prompt = 1 if timestamps else 2
    want = [row[0]['result'][prompt:].tolist() for row in segments]
    assert ours == [[token for token in row if token != model.tokens.end] for row in want]


@pytest.mark.slow_local
def test_times_rise_and_stay_within_the_clip(model, prompts):
    """Also in a clip of several windows, whose times go on."""
    longest = prompts[-1]
    assert longest['duration'] > 2 * LONG
    (text,) = generate(model, [longest], timestamps=True)
    times = [float(part.partition('|>')[0]) for part in text.split('<|')[1:]]
    assert times == sorted(times)
    assert times[0] < 2
    assert longest['duration'] - 5 < times[-1] <= longest['duration'] + 1
