"""TwoHead's places for audio, masks and gradients.

Its numbers are in tests/interop/test_{qwen2_audio,audio_flamingo3,voxtral}_family.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.models.audio.whisper import Size, WhisperEncoder
from alm_jax.models.connectors import MlpConnector
from alm_jax.models.text import decoder
from alm_jax.models.two_head import AUDIO, TwoHead, build_two_head, put_audio
from alm_jax.models.two_tower import AUDIO_ENCODERS

PLACE = 59
TEXT = decoder.Size(24, 1, 2, 32, 60, attention_biases=('query', 'key', 'value'))
NUM_FRAMES = np.array([[16, 5], [0, 13]])  # 5 and 3 vectors


def build(**audio):
    encoder = WhisperEncoder(Size(16, 1, 2, mel_bins=8, positions=40), **audio)
    return TwoHead(encoder, MlpConnector(24, hidden=20), decoder.Decoder(TEXT), PLACE)


def batch(model):
    rng = np.random.default_rng(0)
    mel = rng.standard_normal((2, 2, 16, 8)).astype(np.float32)
    ids = np.zeros((2, 12), np.int32)
    ids[0] = [5, *[PLACE] * 4, 6, PLACE, 7, 0, 0, 0, 0]
    ids[1] = [8, 9, *[PLACE] * 3, 10, 11, 12, 0, 0, 0, 0]
    counts = model.num_vectors(NUM_FRAMES).sum(axis=1)
    assert counts.tolist() == (ids == PLACE).sum(axis=1).tolist()
    return mel, NUM_FRAMES, ids, ids > 0


def test_the_vectors_stand_where_their_token_was():
    ids = jnp.array([[PLACE, 3, PLACE, 4, PLACE], [5, 6, 7, PLACE, 8]])
    vectors = jnp.arange(2 * 6).reshape(2, 6, 1)
    mask = jnp.array([[1, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]], bool)
    left, placed = put_audio(ids, PLACE, vectors, mask)
    np.testing.assert_array_equal(left, [[-1, 3, -1, 4, -1], [5, 6, 7, -1, 8]])
    np.testing.assert_array_equal(placed[0, ::2, 0], [0, 3, 4])
    assert placed[1, 3, 0] == 8


@pytest.fixture(scope='module')
def results():
    """Outputs and gradients of a batch, and outputs of the same one with more of every padding."""
    model = build(masked=True, pool=2)
    mel, frames, ids, mask = batch(model)
    longer = np.pad(mel, ((0, 0), (0, 1), (0, 14), (0, 0)), constant_values=3.0)
    texts = (np.pad(a, ((0, 0), (0, 5))) for a in (ids, mask))
    more = (longer, np.pad(frames, ((0, 0), (0, 1))), *texts)

    @jax.jit
    def run(key):
        params = model.init(key, mel, frames, ids, mask)['params']

        def loss(params):
            outputs = model.apply({'params': params}, mel, frames, ids, mask)
            return jnp.sum(jnp.sin(3 * outputs['logits']) * mask[..., None]), outputs

        gradients, outputs = jax.grad(loss, has_aux=True)(params)
        return gradients, outputs, model.apply({'params': params}, *more)

    return (*run(jax.random.key(0)), mask)


def test_padding_of_windows_clips_and_texts_changes_nothing(results):
    _, outputs, longer, mask = results
    assert outputs['audio'].shape == (2, 2, 4, 24)
    np.testing.assert_allclose(
        longer['logits'][:, : mask.shape[1]][mask], outputs['logits'][mask], atol=1e-5
    )


def test_gradients_reach_every_parameter(results):
    for path, leaf in jax.tree_util.tree_leaves_with_path(results[0]):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # A key bias shifts all logits of a query alike: softmax cancels it.
        assert np.abs(leaf).max() > 1e-7 or "['key']['bias']" in name, name


@pytest.mark.parametrize(('pool', 'stack'), [(1, 4), (2, 3)])
def test_as_many_vectors_as_the_masks_say(pool, stack):
    encoder = WhisperEncoder(Size(16, 1, 2, mel_bins=8, positions=40), masked=True, pool=pool)
    model = TwoHead(encoder, MlpConnector(24, stack=stack), decoder.Decoder(TEXT), PLACE)
    frames = np.arange(17)

    @jax.jit
    def mask(mel):
        outputs, _ = model.init_with_output(jax.random.key(0), mel, frames, method='listen')
        return outputs['audio_mask']

    counts = mask(np.zeros((17, 16, 8), np.float32)).sum(axis=1)
    np.testing.assert_array_equal(counts, model.num_vectors(frames))
    assert counts[-1] == 8 // (pool * stack)


ENCODERS = {
    'beats': ({'variant': 'mu'}, 128),
    'cnn14': ({'variant': 'mu'}, 64),
    'htsat': ({'variant': 'mu'}, 64),
    'spectrogram_transformer': ({'variant': 'mu', 'patch': (16, 32), 'stride': (12, 32)}, 64),
    'whisper': ({'variant': 'mu', 'masked': True, 'pool': 2}, 80),
    'yamnet': ({}, 64),
    'concatenated': (
        {
            'bins': (80, 128),
            'encoders': (
                {'name': 'whisper', 'variant': 'mu'},
                {'name': 'beats', 'variant': 'mu'},
            ),
        },
        208,
    ),
}
MU = {'name': 'decoder', 'variant': 'mu', 'vocabulary': 60, 'depth': 2}
GATED = {
    'name': 'gated_cross_attention',
    'every': 2,
    'heads': 2,
    'depth': 1,
    'memory_heads': 2,
    'memory_mlp_width': 16,
}


def configured(connector=None, audio='whisper', **text):
    options, bins = ENCODERS[audio]
    parts = {
        'audio': {'name': audio, **options},
        'connector': connector or {'name': 'linear'},
        'text': {**MU, **text},
    }
    return build_two_head(parts), bins


def randomised(model, *arguments):
    shapes = jax.eval_shape(model.init, jax.random.key(0), *arguments)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.float32(0.2 * rng.standard_normal(s.shape)), shapes)


def test_every_encoder_is_tried():
    assert set(ENCODERS) == {*AUDIO_ENCODERS, 'concatenated'}


@pytest.mark.parametrize('audio', ENCODERS)
def test_every_encoder_counts_its_vectors(audio):
    """Clips of every kind of length, and none: as many vectors as the mask says."""
    model, bins = configured(audio=audio)
    frames = np.array([0, 1, 17, 100, 111, 112])
    mel = np.random.default_rng(0).standard_normal((6, 112, bins)).astype(np.float32)

    @jax.jit
    def listen(key):
        return model.init_with_output(key, mel, frames, method='listen')[0]

    outputs = listen(jax.random.key(0))
    counts = model.num_vectors(frames)
    np.testing.assert_array_equal(outputs['audio_mask'].sum(axis=1), counts)
    assert counts[0] == 0
    assert counts[-1] == max(counts) > 0
    assert model.num_vectors(112) == counts[-1]
    encoder = outputs['encoder']
    if audio != 'beats':  # whose last patch may be filled in part
        own = model.audio.num_tokens(frames[1:])
        np.testing.assert_array_equal(encoder['frame_mask'].sum(axis=1)[1:], own)


def rows(model, clips_of_texts, length, clips):
    """(mel, frames, ids, segments, weights): texts of a row after each other, padding behind."""
    rng = np.random.default_rng(1)
    b = len(clips_of_texts)
    mel = rng.standard_normal((b, clips, 24, 80)).astype(np.float32)
    frames, ids, segments = (np.zeros(shape, int) for shape in ((b, clips), *[(b, length)] * 2))
    for row, texts in enumerate(clips_of_texts):
        start, clip = 0, 0
        for number, own in enumerate(texts, start=1):
            text = rng.integers(1, 60, 2).tolist()
            for count in own:
                frames[row, clip] = count
                text += [AUDIO] * int(model.num_vectors(count))
                text += rng.integers(1, 60, 3).tolist()
                clip += 1
            ids[row, start : start + len(text)] = text
            segments[row, start : start + len(text)] = number
            start += len(text)
        assert start <= length
    return mel, frames, ids, segments, (segments > 0) & (ids >= 0)


@functools.cache
def of_batch(gated):
    """The model, its parameters and program: the gradient of a number, and the logits."""
    model, _ = configured(GATED if gated else None, lora={'rank': 2})
    arguments = rows(model, [[[24]]], 30, 1)[:4]
    params = randomised(model, *arguments)['params']

    @jax.jit
    def run(params, mel, frames, ids, segments, weights):
        def loss(params):
            outputs = model.apply({'params': params}, mel, frames, ids, segments)
            return jnp.sum(jnp.sin(outputs['logits']) * weights[..., None]), outputs

        return jax.grad(loss, has_aux=True)(params)

    return model, params, run


@pytest.mark.parametrize('gated', [False, True], ids=['in the text', 'gated'])
def test_packed_texts_hear_their_own_clips_only(gated):
    """Values and gradients are the sums of the texts', each a row of its own."""
    model, params, run = of_batch(gated)
    texts = [[[24, 13], [9], []], [[17], [24, 8]]]
    clips = [[c for text in row for c in text] for row in texts]
    packed = rows(model, texts, 56, 4)
    gradient, outputs = run(params, *packed)
    mel, frames, ids, segments, _ = packed
    alone = [np.zeros((5, *array.shape[1:]), array.dtype) for array in packed]
    places, index = [], 0
    for row, of_row in enumerate(texts):
        start = 0
        for number, own in enumerate(of_row, start=1):
            place = np.flatnonzero(segments[row] == number)
            alone[0][index, : len(own)] = mel[row, start : start + len(own)]
            alone[1][index, : len(own)] = frames[row, start : start + len(own)]
            alone[2][index, : len(place)] = ids[row, place]
            alone[3][index, : len(place)] = 1
            alone[4][index, : len(place)] = packed[4][row, place]
            places.append((row, place))
            start += len(own)
            index += 1
        assert start == len(clips[row])
    sums, by_itself = run(params, *alone)
    for i, (row, place) in enumerate(places):
        want = by_itself['logits'][i, : len(place)]
        difference = np.abs(outputs['logits'][row, place] - want).max()
        assert difference <= 1e-5 * np.abs(want).max()
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(sums), strict=True
    ):
        scale = np.abs(theirs).max()
        # What is zero but for rounding (key biases, positions of no clip) has no scale of its own.
        assert np.abs(ours - theirs).max() <= 1e-5 * scale + 1e-6, jax.tree_util.keystr(path)


@pytest.mark.parametrize('gated', [False, True], ids=['in the text', 'gated'])
def test_what_is_heard_matters_to_what_follows_it_alone(gated):
    model, params, run = of_batch(gated)
    batch = rows(model, [[[24, 13], [9]]], 40, 3)
    _, before = run(params, *batch)
    mel = batch[0].copy()
    mel[0, 1] += 1
    _, after = run(params, mel, *batch[1:])
    moved = np.abs(after['logits'] - before['logits'])[0].max(axis=-1) > 1e-6
    second = np.flatnonzero(batch[2][0] == AUDIO)[int(model.num_vectors(24))]
    inside = batch[3][0] == 1
    np.testing.assert_array_equal(moved, inside & (np.arange(40) >= second))


@pytest.mark.parametrize('gated', [False, True], ids=['in the text', 'gated'])
def test_text_after_a_call_with_a_cache_is_as_all_at_once(gated):
    """Prompts of unequal length, padded in front; also with the layers one by one."""
    model, params, run = of_batch(gated)
    batch = rows(model, [[[24, 13]], [[9]]], 26, 2)
    mel, frames, ids, segments = (np.array(array) for array in batch[:4])
    for row in range(2):
        behind = (segments[row] == 0).sum()
        ids[row], segments[row] = np.roll(ids[row], behind), np.roll(segments[row], behind)
    _, whole = run(params, mel, frames, ids, segments, segments > 0)
    prompt = (mel, frames, ids[:, :-3], segments[:, :-3])
    start = jax.jit(model.apply)({'params': params}, *prompt, cache=model.empty_cache(2, 26))
    for stepper, own in ((model, params), model.one_by_one(params)):
        step = jax.jit(functools.partial(stepper.apply, method='extend'))
        outputs, got = start, [start['logits']]
        for t in range(23, 26):
            now = ids[:, t : t + 1]
            outputs = step({'params': own}, now, cache=outputs['cache'])
            got.append(outputs['logits'])
        difference = np.abs(np.concatenate(got, axis=1) - whole['logits'])[segments > 0]
        assert difference.max() <= 1e-5 * np.abs(whole['logits']).max()


@pytest.mark.parametrize('gated', [False, True], ids=['in the text', 'gated'])
def test_gradients_reach_every_parameter_of_a_configured_model(gated):
    model, params, run = of_batch(gated)
    gradient, _ = run(params, *rows(model, [[[24, 13], [9]]], 40, 3))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 1e-8 or "['key']['bias']" in name, name


def test_low_rank_terms_start_as_nothing():
    """What a checkpoint of the language model says is what the model with terms says."""
    model, _ = configured(lora={'rank': 2, 'alpha': 4, 'targets': ('query', 'out')})
    arguments = rows(model, [[[24]]], 30, 1)[:4]
    variables = jax.jit(model.init)(jax.random.key(0), *arguments)
    plain, _ = configured()
    attn = variables['params']['text']['layers']['attn']
    assert {name for name, own in attn.items() if 'lora_a' in own} == {'query', 'out'}
    assert not any(own['lora_b'].any() for own in attn.values() if 'lora_b' in own)
    without = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf, variables)
    for own in without['params']['text']['layers']['attn'].values():
        own.pop('lora_a', None), own.pop('lora_b', None)
    got, want = (
        m.apply(v, *arguments)['logits'] for m, v in ((model, variables), (plain, without))
    )
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (
            {'connector': {'name': 'qformer'}},
            "connector.name is 'qformer'. Did you mean 'q_former'",
        ),
        ({'connector': {'name': 'linear', 'hiden': 3}}, 'connector.hiden is not a key.*hidden'),
        ({'audio': {'name': 'wisper'}}, "audio.name is 'wisper'. Did you mean 'whisper'"),
        ({'text': {'name': 'decoder', 'variant': 'gpt3'}}, "Did you mean 'gpt2'"),
        ({'text': {'name': 'bert'}}, "text.name is 'bert'"),
        (
            {'audio': {'name': 'concatenated', 'encoders': ({'name': 'whisper'},)}},
            'give the mel bins of the front end of each encoder',
        ),
        (
            {'audio': {'name': 'spectrogram_transformer', 'patchout': (2, 0)}},
            'patchout, which a language model cannot count with',
        ),
        ({'connector': {**GATED, 'every': 5}}, 'every is 5, which does not divide the 2 layers'),
    ],
)
def test_mistakes_are_named(parts, message):
    whole = {'audio': {'name': 'whisper', 'variant': 'mu'}, 'connector': {'name': 'linear'}}
    with pytest.raises(ConfigError, match=message):
        build_two_head({**whole, 'text': MU, **parts})
