"""Rules to shardings: what the defaults split, and that each mistake is told with its remedy."""

import jax
import jax.numpy as jnp
import pytest
import toy
from jax.sharding import AbstractMesh, PartitionSpec

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.training import param_sharding, sharding, state

MESH = AbstractMesh((2, 4, 2, 1), sharding.AXES)
DEFAULTS = config_lib.base().sharding.params


def _leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _tower():
    return {
        'embed': {'word_embedding': {'embedding': _leaf(30522, 64)}},
        'layers': {
            'attn': {'query': {'kernel': _leaf(3, 64, 64), 'bias': _leaf(3, 64)}},
            'mlp': {'down': {'kernel': _leaf(3, 256, 64)}},
            'mlp_norm': {'scale': _leaf(3, 64)},
        },
        'patches': {'kernel': _leaf(16, 16, 1, 64)},
    }


def _specs(rules):
    found = param_sharding.specs(_tower(), MESH, rules)
    return {'/'.join(path): spec for path, spec in found.items()}


def test_defaults_split_matrices_and_leave_layer_axes_whole():
    assert _specs(DEFAULTS) == {
        'embed/word_embedding/embedding': PartitionSpec(None, 'fsdp'),
        'layers/attn/query/kernel': PartitionSpec(None, 'fsdp', 'tensor'),
        'layers/attn/query/bias': PartitionSpec(),
        'layers/mlp/down/kernel': PartitionSpec(None, 'tensor', 'fsdp'),
        'layers/mlp_norm/scale': PartitionSpec(),
        'patches/kernel': PartitionSpec(),
    }


def test_the_first_match_wins():
    rules = ((r'^layers/\d+/attn/', ((),)), (r'down', (('fsdp', 'tensor'),)), *DEFAULTS)
    found = _specs(rules)
    assert found['layers/attn/query/kernel'] == PartitionSpec()
    assert found['layers/mlp/down/kernel'] == PartitionSpec(None, ('fsdp', 'tensor'))


@pytest.mark.parametrize(
    ('rule', 'message'),
    [
        (('qurey/kernel$', ('fsdp',)), r"'qurey/kernel\$' matches nothing. (Did you mean|Valid)"),
        (('(', ()), 'is not a regex'),
        (('a', 'b', 'c'), 'is no rule; write'),
        (('bias', ('fsdq',)), "no axis of the mesh. Did you mean 'fsdp'"),
        (('down/kernel', ('fsdp', 'fsdp')), 'names an axis twice'),
        (('bias', ('fsdp', 'tensor')), 'at most 1 entries would fit'),
        (
            ('word_embedding', ('fsdp',)),
            r'dimension 0 of 30522 does not divide over 4 devices of fsdp. Of the smaller sizes '
            r"1, 2, 3 would; or put \('\^embed/word_embedding/embedding\$', \(None,\)\) before",
        ),
        (('layers/1/attn/query/kernel', ('tensor',)), r'layers of one array.*layers/\\d\+/'),
    ],
)
def test_mistakes(rule, message):
    with pytest.raises(ConfigError, match=message):
        param_sharding.specs(_tower(), MESH, (rule, *DEFAULTS))


def test_activations_name_axes_of_the_mesh():
    rules = config_lib.base().sharding.activations
    assert param_sharding.logical_axes(rules, MESH)['batch'] == ('data', 'fsdp')
    assert param_sharding.logical_axes(rules, MESH)['mlp'] == ('tensor',)
    with pytest.raises(ConfigError, match="Did you mean 'tensor'"):
        param_sharding.logical_axes((('mlp', 'tensro'),), MESH)


def test_moments_lie_where_their_parameters_do():
    config = toy.make_config(freeze=(r'^tower/patches',))
    task, optimizer, mesh, _ = toy.make(config)
    shapes = state.abstract(lambda: task.init(jax.random.key(0)), optimizer)
    rules = ((r'kernel$', ('fsdp',)), (r'bias$', ('tensor',)))
    placement = param_sharding.of_state(shapes, mesh, rules)
    assert placement.params['tower']['patches']['kernel'].spec == PartitionSpec('fsdp')
    layers = placement.params['tower']['layers']
    assert layers['kernel'].spec == PartitionSpec(None, 'fsdp')
    moments = placement.opt_state['transform'][1]
    assert moments.mu['tower']['layers'] == moments.nu['tower']['layers'] == layers
    assert moments.count.spec == placement.step.spec == PartitionSpec()
    assert placement.extra['seen']['mean'].spec == PartitionSpec()


def test_the_table_lists_shape_dtype_spec_and_bytes():
    *_, mesh, fresh = toy.make(toy.make_config())
    placement = param_sharding.of_state(fresh, mesh, ((r'layers/\d+/kernel', (None, 'fsdp')),))
    lines = param_sharding.table(fresh, placement).splitlines()
    assert lines[0] == 'mesh: data 1, fsdp 1, tensor 1, sequence 1'
    rows = [line.split() for line in lines[2:]]
    assert ['head/kernel', '[4,', '1]', 'float32', 'replicated', '16'] in rows
    assert ['tower/layers/kernel', '[3,', '4,', '4]', 'float32', '-,', '-,', 'fsdp', '192'] in rows
    assert ['total', 'of', 'params', '320'] in rows
    assert [row[2] for row in rows[-3:]] == ['params', 'opt_state', 'extra']
