"""Adapters of a small decoder: what they change, what they leave, and that only they train."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax.adapters import files, prompts, task
from alm_jax.adapters.bottleneck import Bottleneck
from alm_jax.adapters.lora import Lora
from alm_jax.config import ConfigError
from alm_jax.models.text.decoder import Decoder, Size
from alm_jax.training import optimizer, sharding, state, step
from alm_jax.training.param_names import flatten_canonical

DECODER = Decoder(Size(width=16, depth=3, heads=2, mlp_width=24, vocabulary=30, kv_heads=1))
IDS = np.array([[3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 0, 0]])
MASK = IDS > 0
TARGETS = (r'attn/(query|value)/kernel', r'layers/[02]/mlp/down')
APPLY = jax.jit(DECODER.apply)
LORAS = {
    'lora': Lora(TARGETS, rank=4, alpha=8),
    'dora': Lora(TARGETS, rank=4, alpha=8, dora=True, rank_stabilised=True),
}


@pytest.fixture(scope='module')
def params():
    return jax.jit(DECODER.init)(jax.random.key(0), IDS)['params']


def moved(adapters):
    """Adapters as after training."""
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + generator.normal(0, 0.3, x.shape).astype(x.dtype), adapters)


def logits(params):
    return np.asarray(APPLY({'params': params}, IDS, MASK)['logits'])[MASK]


@pytest.mark.parametrize('name', LORAS)
def test_fresh_adapters_change_nothing(params, name):
    lora = LORAS[name]
    fresh = jax.jit(lora.init)(jax.random.key(1), params)
    np.testing.assert_allclose(logits(lora.apply(params, fresh)), logits(params), atol=1e-5)
    assert fresh['layers']['attn']['query']['lora_a'].shape == (3, 16, 4)
    assert fresh['layers']['mlp']['down']['lora_b'].shape == (2, 4, 16)


@pytest.mark.parametrize('name', LORAS)
def test_every_matrix_is_what_the_formula_says(params, name):
    lora = LORAS[name]
    adapters = moved(lora.init(jax.random.key(1), params))
    before = flatten_canonical(params)
    after = flatten_canonical(jax.jit(lora.apply)(params, adapters))
    for key, kernel in before.items():
        _, layer, *rest = key.split('/')
        module = '/'.join(rest[:-1])
        own = adapters['layers']
        if module in ('attn/query', 'attn/value') and key.endswith('kernel'):
            own, row = own['attn'][rest[1]], int(layer)
        elif module == 'mlp/down' and layer in '02':
            own, row = own['mlp']['down'], int(layer) // 2
        else:
            np.testing.assert_array_equal(after[key], kernel, err_msg=key)
            continue
        scale = 8 / 2 if lora.dora else 8 / 4
        product = np.float64(own['lora_a'][row]) @ np.float64(own['lora_b'][row])
        expected = np.float64(kernel) + scale * product
        if lora.dora:
            expected *= np.float64(own['magnitude'][row]) / np.linalg.norm(expected, axis=0)
        np.testing.assert_allclose(after[key], expected, atol=1e-5, err_msg=key)


@pytest.mark.parametrize('name', LORAS)
def test_merge_and_unmerge(params, name):
    lora = LORAS[name]
    adapters = moved(lora.init(jax.random.key(1), params))
    merged, norms = lora.merge(params, adapters)
    for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(lora.apply(params, adapters))):
        np.testing.assert_array_equal(a, b)
    back = flatten_canonical(lora.unmerge(merged, adapters, norms))
    plain = dataclasses.replace(lora, dora=False)
    changed = flatten_canonical(plain.apply(params, adapters))
    for key, kernel in flatten_canonical(params).items():
        largest = max(np.abs(kernel).max(), np.abs(changed[key]).max())
        assert np.abs(back[key] - kernel).max() <= 2**-21 * largest, key
    untouched = 'layers/1/mlp/down/kernel'
    np.testing.assert_array_equal(back[untouched], flatten_canonical(params)[untouched])


def test_parameters_of_half_precision_keep_their_dtype(params):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    lora = LORAS['lora']
    changed = lora.apply(half, moved(lora.init(jax.random.key(1), half)))
    assert {x.dtype for x in jax.tree.leaves(changed)} == {jnp.dtype(jnp.bfloat16)}


def test_what_no_regex_can_choose(params):
    with pytest.raises(ConfigError, match=r"'attn/quary' matches no parameter"):
        Lora(('attn/quary',)).init(jax.random.key(0), params)
    with pytest.raises(ConfigError, match='match no kernel'):
        Lora(('norm/scale',)).init(jax.random.key(0), params)
    with pytest.raises(ConfigError, match=r'patch/kernel is a kernel of shape \(3, 3, 1, 2\)'):
        Lora(('patch',)).init(jax.random.key(0), {'patch': {'kernel': jnp.zeros((3, 3, 1, 2))}})


def test_bottlenecks(params):
    bottleneck = Bottleneck((r'attn/out/kernel', r'layers/[02]/mlp/down'), width=5)
    fresh = bottleneck.init(jax.random.key(1), params)
    adapters = moved(fresh)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def adapted(adapters):
        with bottleneck.inserted():
            variables = {'params': bottleneck.join(params, adapters)}
            logits = DECODER.apply(variables, IDS, MASK)['logits']
        return jnp.mean(jnp.square(logits)), logits

    (_, unchanged), _ = adapted(fresh)
    np.testing.assert_allclose(np.asarray(unchanged)[MASK], logits(params), atol=1e-6)
    (_, changed), gradient = adapted(adapters)
    assert np.abs(np.asarray(changed)[MASK] - logits(params)).max() > 0.1
    gradient = gradient['layers']
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))
    assert np.abs(gradient['mlp']['down']['up'][1]).max() == 0
    assert np.abs(gradient['attn']['out']['up'][1]).max() > 0
    # Layer by layer, as decoding on a CPU unrolls it.
    with bottleneck.inserted():
        module, unrolled = DECODER.one_by_one(bottleneck.join(params, adapters))
        alone = jax.jit(module.apply)({'params': unrolled}, IDS, MASK)['logits']
    np.testing.assert_allclose(alone, changed, atol=1e-4)


def test_prompts_and_prefixes(params):
    """A prompt of the embeddings of tokens is those tokens, and so is a prefix of their keys."""
    tokens = np.tile([20, 21, 22], (2, 1))
    whole = np.concatenate([tokens, IDS], axis=1)
    mask = np.concatenate([np.ones((2, 3), bool), MASK], axis=1)
    expected = APPLY({'params': params}, whole, mask)['logits'][:, 3:]
    prompt = params['token_embedding']['embedding'][tokens[0]]
    given = prompts.with_prompt(prompt, IDS, MASK)
    ours = APPLY({'params': params}, **given)['logits'][:, 3:]
    np.testing.assert_allclose(np.asarray(ours)[MASK], np.asarray(expected)[MASK], atol=1e-5)

    made = APPLY({'params': params}, tokens, cache=DECODER.empty_cache(2, 3))['cache']
    prefix = {name: slots[:, 0].swapaxes(1, 2) for name, slots in made['layers']['attn'].items()}
    fresh = prompts.init_prefix(jax.random.key(0), DECODER, 3)
    assert {n: x.shape for n, x in fresh.items()} == {n: x.shape for n, x in prefix.items()}

    @functools.partial(jax.value_and_grad, has_aux=True)
    def with_prefix(prefix):
        cache = prompts.with_prefix(DECODER, prefix, 2, IDS.shape[1])
        logits = DECODER.apply({'params': params}, IDS, MASK, cache=cache)['logits']
        return jnp.mean(jnp.square(logits)), logits

    (_, ours), gradient = jax.jit(with_prefix)(prefix)
    np.testing.assert_allclose(np.asarray(ours)[MASK], np.asarray(expected)[MASK], atol=1e-5)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))
    assert prompts.init_prompt(jax.random.key(0), params, 5).shape == (5, 16)


@pytest.mark.parametrize('adapter', [LORAS['dora'], Bottleneck(TARGETS, width=3)])
def test_saved_alone(params, tmp_path, adapter):
    adapters = moved(adapter.init(jax.random.key(1), params))
    files.save(adapter, adapters, tmp_path / 'x')
    again, arrays = files.load(tmp_path / 'x')
    assert again == adapter
    jax.tree.map(np.testing.assert_array_equal, arrays, adapters)
    with pytest.raises(ConfigError, match='is not empty'):
        files.save(adapter, adapters, tmp_path / 'x')
    (tmp_path / 'x' / 'adapter.json').write_text('{"kind": "lore"}')
    with pytest.raises(ConfigError, match=r"adapter\.json: kind is 'lore'. Did you mean 'lora'"):
        files.load(tmp_path / 'x')
    with pytest.raises(ConfigError, match='holds no adapter'):
        files.load(tmp_path)


class NextToken:
    """A task of the training loop: the decoder continues IDS."""

    def init(self, rng, batch_spec):
        return DECODER.init(rng, IDS)['params'], {}

    def loss(self, params, extra, batch, rng):
        predicted = DECODER.apply({'params': params}, batch['ids'], batch['ids'] > 0)['logits']
        losses = optax.softmax_cross_entropy_with_integer_labels(
            predicted[:, :-1], batch['ids'][:, 1:]
        )
        return jnp.mean(losses), ({}, extra)

    def after_update(self, params, extra, step):
        return extra


def test_the_training_step_moves_the_adapters_alone():
    adapted = task.AdaptedTask(NextToken(), LORAS['lora'])
    config = config_lib.base()
    config.steps, config.freeze = 20, task.FREEZE
    config.optimizer = ConfigDict({**config.optimizer, 'learning_rate': 0.1})
    params, extra = jax.jit(lambda rng: adapted.init(rng, {}))(jax.random.key(0))
    made = optimizer.make_optimizer(config, params)
    before = jax.device_get(params)
    run = state.create(params, extra, made)
    moments = run.opt_state['transform']
    assert not any(
        'model' in jax.tree_util.keystr(k) for k, _ in jax.tree.leaves_with_path(moments)
    )
    mesh = sharding.make_mesh({'data': -1})
    train_step = step.make_train_step(adapted, made, seed=0, mesh=mesh)
    batch = sharding.put_batch({'ids': IDS}, mesh)
    losses = []
    for _ in range(6):
        run, metrics = train_step(run, batch)
        losses.append(float(metrics['loss']))
    assert losses[-1] < losses[0] - 0.1
    jax.tree.map(np.testing.assert_array_equal, run.params['model'], before['model'])
    for old, new in zip(
        jax.tree.leaves(before['adapters']), jax.tree.leaves(run.params['adapters'])
    ):
        assert np.abs(old - new).max() > 0
