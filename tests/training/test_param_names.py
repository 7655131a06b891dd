"""Canonical names: exact inverse, abstract leaves, regex masks along the layer axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.training import param_names


def _params():
    values = iter(range(1, 100))

    def leaf(*shape):
        return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1000 * next(values)

    return {
        'audio': {
            'layers': {'attn': {'query': {'kernel': leaf(3, 4, 5), 'bias': leaf(3, 5)}}},
            'patches': {'kernel': leaf(2, 4)},
        },
        'stages': {'layers': {'blocks': {'layers': {'kernel': leaf(2, 3, 4)}}, 'scale': leaf(2)}},
        'logit_scale': leaf(),
    }


def test_names_count_the_layers():
    params = _params()
    flat = param_names.flatten_canonical(params)
    assert len(flat) == 3 + 3 + 1 + 6 + 2 + 1
    kernel = params['audio']['layers']['attn']['query']['kernel']
    np.testing.assert_array_equal(flat['audio/layers/2/attn/query/kernel'], kernel[2])
    nested = params['stages']['layers']['blocks']['layers']['kernel']
    np.testing.assert_array_equal(flat['stages/layers/1/blocks/layers/2/kernel'], nested[1, 2])
    np.testing.assert_array_equal(
        flat['stages/layers/1/scale'], params['stages']['layers']['scale'][1]
    )
    assert flat['logit_scale'].shape == ()


@pytest.mark.parametrize('convert', [lambda x: x, jnp.asarray], ids=['numpy', 'jax'])
def test_unflatten_is_the_inverse(convert):
    params = jax.tree.map(convert, _params())
    flat = param_names.flatten_canonical(params)
    back = param_names.unflatten_canonical(flat, params)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params)):
        assert isinstance(a, type(b))
        np.testing.assert_array_equal(a, b)


def test_abstract_leaves():
    abstract = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, _params()))
    flat = param_names.flatten_canonical(abstract)
    concrete = param_names.flatten_canonical(_params())
    assert {k: v.shape for k, v in flat.items()} == {k: v.shape for k, v in concrete.items()}
    assert param_names.unflatten_canonical(flat, abstract) == abstract
    # Real values into an abstract tree: the way pretrained weights come in.
    back = param_names.unflatten_canonical(concrete, abstract)
    assert jax.tree.map(lambda x: x.shape, back) == jax.tree.map(lambda x: x.shape, abstract)


def test_every_problem_is_named():
    flat = param_names.flatten_canonical(_params())
    del flat['audio/layers/1/attn/query/bias']
    flat['audio/extra'] = np.zeros(2)
    flat['audio/patches/kernel'] = np.zeros((4, 2))
    with pytest.raises(ValueError, match='missing audio/layers/1/attn/query/bias') as error:
        param_names.unflatten_canonical(flat, _params())
    assert 'unknown audio/extra' in str(error.value)
    assert 'audio/patches/kernel has shape (4, 2), not (2, 4)' in str(error.value)


def test_match_makes_masks_along_the_layer_axes():
    masks = param_names.match(
        _params(), [r'audio/layers/[01]/', r'blocks/layers/2/'], where='freeze'
    )
    np.testing.assert_array_equal(masks['audio']['layers']['attn']['query']['kernel'], [1, 1, 0])
    np.testing.assert_array_equal(
        masks['stages']['layers']['blocks']['layers']['kernel'], [[0, 0, 1], [0, 0, 1]]
    )
    assert masks['logit_scale'].shape == ()
    assert not masks['logit_scale']
    kernel = np.zeros((3, 4, 5))
    mask = masks['audio']['layers']['attn']['query']['kernel']
    assert param_names.broadcast(mask, kernel).shape == (3, 1, 1)


def test_a_regex_that_matches_nothing_is_an_error():
    with pytest.raises(ConfigError, match=r"config\.freeze: the regex 'audioo/patches' matches no"):
        param_names.match(_params(), ['logit_scale', 'audioo/patches'], where='freeze')
    with pytest.raises(ConfigError, match='not a regex'):
        param_names.match(_params(), ['('], where='freeze')
