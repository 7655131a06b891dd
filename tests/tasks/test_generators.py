"""Answers: those of the model without a cache, and the same whatever else is in the list."""

import dataclasses
import functools

import generative_run
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run

from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data import dialogue_tokens
from alm_jax.decoding.sampling import Sampling
from alm_jax.tasks import build_task, generative
from alm_jax.text.language_tokenizer import LanguageTokenizer

MAX_TOKENS = 6
GATED = {'name': 'gated_cross_attention', 'heads': 2, 'head_dim': 8, 'mlp_width': 32, 'depth': 1}


@pytest.fixture(autouse=True)
def _texts_are_numbers(monkeypatch):
    """Texts of random bytes are mostly the same sign for what is no character."""
    monkeypatch.setattr(LanguageTokenizer, 'decode', lambda _, ids: ' '.join(map(str, ids)))


@functools.cache
def model(attention='causal', connector='linear'):
    """(task, parameters), with a head of its own: a tied one repeats the last token."""
    tokenizer = generative_run.tokenizer()
    config = generative_run.make_config(plain=True, vocabulary=tokenizer.vocab_size, head='own')
    config.model.attention = attention
    config.model.connector = GATED if connector == 'gated' else {'name': connector}
    task = build_task(config, tokenizer=tokenizer)
    params, _ = jax.jit(lambda: task.init(jax.random.key(1), None))()
    if connector == 'gated':
        gates = ('attn_gate', 'mlp_gate')
        params['connector']['layers'] |= {n: params['connector']['layers'][n] + 2 for n in gates}
    return task, params


def answers(rows, attention='causal', connector='linear', **options):
    task, params = model(attention, connector)
    return task.predictors.generate(params, {}, rows, max_tokens=MAX_TOKENS, **options)


def without_cache(row, attention, connector):
    """The likeliest tokens of one row, the whole text read again for each."""
    task, params = model(attention, connector)
    (clip, _), turns = row[0][0], row[1]
    predictors = task.predictors
    pcm = np.zeros((1, task.window_samples), np.int16)
    pcm[0, : len(clip)] = clip
    mel, frames = task._front_end.plain(jnp.asarray(pcm), jnp.array([len(clip)]))
    vectors = int(task.vectors_of_frames[int(frames[0])])
    ids = dialogue_tokens.encode(predictors.dialogue, turns, [vectors]).token_ids.tolist()
    prompt, length = len(ids), len(ids) + MAX_TOKENS
    at = jnp.arange(length)[None]

    @jax.jit
    def next_token(ids, end):
        segments = (at < end).astype(jnp.int32)
        prefix = (at < prompt) if attention == 'prefix' else None
        out = task.model.apply(
            {'params': params},
            mel[None],
            frames[None],
            ids,
            segments,
            prefix_bt=prefix,
            logits_at_bn=jnp.full((1, 1), end - 1),
        )
        return jnp.argmax(out['logits'][0, 0])

    while len(ids) < length:
        padded = np.pad(ids, (0, length - len(ids)))[None]
        ids.append(int(next_token(padded, len(ids))))
        if ids[-1] in predictors.dialogue.stop_ids:
            ids.pop()
            break
    return predictors.tokenizer.decode(ids[prompt:]).strip()


@pytest.mark.parametrize(
    ('attention', 'connector'), [('causal', 'linear'), ('prefix', 'linear'), ('causal', 'gated')]
)
def test_answers_are_those_without_a_cache(attention, connector):
    rows = generative_run.questions(3)
    found = answers(rows, attention, connector)
    assert len(set(found)) > 1
    assert found == [without_cache(row, attention, connector) for row in rows]


def test_an_answer_does_not_depend_on_the_list():
    rows = generative_run.questions(11)  # more than a batch, of prompts of several lengths
    whole = answers(iter(rows))
    assert len(set(whole)) > 5
    assert answers(rows[::-1])[::-1] == whole
    assert [answers([rows[i]])[0] for i in (0, 7)] == [whole[0], whole[7]]


def test_a_sampled_answer_is_told_by_its_seed():
    rows = generative_run.questions(1) * 4
    sampling = Sampling(temperature=1.0, seed=(1, 2, 3, 1))
    found = answers(rows, sampling=sampling)
    assert found[0] == found[3]
    assert len(set(found)) > 1
    assert answers(rows[:1], sampling=dataclasses.replace(sampling, seed=2)) == [found[1]]


def test_answers_end_before_a_stop_string():
    rows = generative_run.questions(1)
    (whole,) = answers(rows)
    assert len(whole) > 3
    assert answers(rows, stops=(whole[2:4],)) == [whole[: whole.index(whole[2:4])].strip()]


def test_of_a_long_clip_the_first_windows_are_heard():
    task, _ = model()
    length = task.window_samples
    assert task.predictors.max_seconds == generative_run.CLIPS * length / 16000
    rng = np.random.default_rng(0)
    clip = rng.integers(-9000, 9000, (generative_run.CLIPS + 1) * length).astype(np.int16)
    turns = [('what is it', None)]
    cuts = [clip, clip[: generative_run.CLIPS * length], clip[:length]]
    rows = [([(cut, 16000)], turns) for cut in cuts]
    long, heard, short = answers(rows)
    assert long == heard != short


def test_several_clips_and_turns_have_their_places():
    one, other = small_run.clips(8)[2], small_run.clips(8)[7]
    first = [('<audio> or <audio> ?', 'the first'), ('why ?', None)]
    rows = [([one, other], first), ([other, one], first), ([one, other], first[1:])]
    assert len(set(answers(rows))) == 3


@pytest.mark.parametrize(
    ('row', 'error', 'message'),
    [
        (([], [('what ?', None)]), ConfigError, 'no clip'),
        (([(np.ones(100, np.int16), 16000)], [('what ?', None)]), AudioError, 'too short for one'),
        ((small_run.clips(1), [('<audio> or <audio> ?', None)]), ConfigError, 'clip'),
    ],
)
def test_rows_that_cannot_be_answered(row, error, message):
    with pytest.raises(error, match=message):
        answers([row], connector='pool')  # of two vectors each


def test_more_tokens_than_the_model_has_positions():
    words = generative_run.tokenizer()
    config = generative_run.make_config(plain=True, vocabulary=words.vocab_size, positions=32)
    task = build_task(config, tokenizer=words)
    params, _ = jax.jit(lambda: task.init(jax.random.key(1), None))()
    rows = generative_run.questions(3)[2:]  # of 30 tokens
    with pytest.raises(ConfigError, match='may take 36 tokens; the model has 32 positions'):
        task.predictors.generate(params, {}, rows, max_tokens=6)
    assert len(task.predictors.generate(params, {}, rows, max_tokens=2)) == 1


def test_a_stream_is_the_answer(monkeypatch):
    monkeypatch.undo()
    task, params = model()
    rows = generative_run.questions(3)
    whole = [text.replace('\ufffd', '') for text in answers(rows)]  # bytes that are no character
    assert any(whole)
    for row, text in zip(rows, whole):
        pieces = list(task.predictors.stream(params, {}, row, max_tokens=MAX_TOKENS))
        assert ''.join(pieces).replace('\ufffd', '').strip() == text.strip()


def test_names():
    task, _ = model()
    other = dataclasses.replace(task.predictors, max_windows=1)
    assert other.front_end_sha256 != task.predictors.front_end_sha256
    assert other.text_sha256 == task.predictors.text_sha256
    assert len(other.text_sha256) == 64


def test_a_tokenizer_of_more_tokens_than_the_model_has():
    config = generative_run.make_config(plain=True)
    task = build_task(config, tokenizer=generative_run.tokenizer())
    with pytest.raises(ConfigError, match='the model a vocabulary of 60'):
        _ = task.predictors
    assert isinstance(task, generative.GenerativeTask)
