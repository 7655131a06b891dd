"""Runs of our own behind the same interface as pretrained folders."""

import jax
import numpy as np
import pytest
import soundfile

from alm_jax import config as config_lib
from alm_jax.decoding.sampling import Sampling
from alm_jax.load import load
from alm_jax.speaking.conversation import Conversation
from alm_jax.speaking.speaker import load_speaker
from alm_jax.tasks import build_task
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.training import checkpoint, optimizer, state

RATE = 16_000
OPTIONS = {'max_tokens': 8, 'sampling': Sampling()}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A checkpoint of an encoder and a decoder whose weights are random, and large."""
    folder = tmp_path_factory.mktemp('runs') / 'answers'
    tokenizer = LanguageTokenizer.train(['a dog barks near the old bridge', 'rain falls'] * 2)
    tokenizer.save(folder / 'tokenizer')
    config = config_lib.base()
    config.steps = 1
    config.data.text.dialogue, config.text.lengths = 'plain', (64,)
    config.data.train = ({'name': 'packaged_sounds/tiny:train'},)
    config.front_end.seconds = 1.0
    config.task.name, config.model.family = 'generative', 'two_head'
    config.model.audio = {'name': 'spectrogram_transformer', 'variant': 'mu'}
    config.model.text = {'name': 'decoder', 'variant': 'mu', 'vocabulary': tokenizer.vocab_size}
    config.text.tokenizer = str(folder / 'tokenizer')
    (folder / 'config.json').write_text(config_lib.to_json(config))
    params, extra = jax.jit(lambda: build_task(config).init(jax.random.key(8), None))()
    words = map(tokenizer.decode, ([i] for i in range(tokenizer.vocab_size)))
    likely = np.array([word.isascii() and word.isprintable() and word != '' for word in words])
    params['text']['token_embedding']['embedding'] *= 30 * likely[:, None]
    params['connector'] = jax.tree.map(lambda x: 4 * x, params['connector'])
    run = state.create(params, extra, optimizer.make_optimizer(config, params))
    with checkpoint.Checkpointer(folder, keep=1) as checkpointer:
        checkpointer.save(run.replace(step=run.step + 1))
    return folder


def clip(noises, name):
    return soundfile.read(noises / name, dtype='float32')[0]


def test_a_run_writes_what_the_loaded_model_does(run, workdir, noises):
    files = [noises / '3.wav', noises / '9.wav']
    done = run('caption', *files, '--workdir', workdir, '--max_tokens', 8)
    assert done.returncode == 0, done.stderr
    texts = [line.split('\t')[1] for line in done.stdout.splitlines()]
    clips = [clip(noises, file) for file in files]
    prompt = 'Describe what can be heard.'
    found = load(workdir).generate(clips, prompt, sampling_rate=RATE, max_tokens=8)
    assert texts == [' '.join(text.split()) for text in found]
    assert all(texts)
    assert '9.wav: heard the first 1 s of 1.4 s' in done.stderr


def test_pieces_of_an_answer_are_the_answer(workdir, noises):
    speaker = load_speaker(workdir)
    talk = Conversation(speaker, 600.0, OPTIONS)
    talk.hear(noises / '3.wav')
    pieces = list(talk.answer('what is it ?'))
    assert len(pieces) > 1
    first = clip(noises, '3.wav'), RATE
    row = [first], [('<audio>what is it ?', None)]
    assert [''.join(pieces).strip()] == speaker.write([row], **OPTIONS)
    talk.hear(noises / '5.wav')
    then = ''.join(talk.answer('and then ?')).strip()
    turns = [*talk.turns[:1], ('<audio>and then ?', None)]
    both = [first, (clip(noises, '5.wav'), RATE)]
    assert speaker.write([(both, turns)], **OPTIONS) == [then]
    assert np.isfinite(speaker.max_seconds)
