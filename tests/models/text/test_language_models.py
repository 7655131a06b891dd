"""Published language models by name; their numbers are in tests/interop."""

import jax
import jax.numpy as jnp
import pytest

from alm_jax.config import ConfigError
from alm_jax.models.text.language_models import VARIANTS, build_decoder


@pytest.mark.parametrize(
    ('name', 'millions'),
    [
        ('gpt2', 124.4),
        ('smollm2_135m', 134.5),
        ('vicuna_7b', 6738.4),
        ('vicuna_13b', 13015.9),
        ('qwen2_5_3b', 3085.9),
        ('qwen2_5_7b', 7615.6),
    ],
)
def test_published_language_models_have_their_published_sizes(name, millions):
    model = build_decoder({'variant': name})
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'variant': 'gpt3'}, "text.variant is 'gpt3'. Did you mean 'gpt2'"),
        ({'widht': 3}, "text.widht is not a key. Did you mean 'width'"),
        ({'lora': {'rnk': 3}}, "lora.rnk is not a key. Did you mean 'rank'"),
        ({'lora': {'targets': ('q_proj',)}}, "lora.targets is 'q_proj'. Valid: key, out"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        build_decoder(options)


def test_attributes_replace_those_of_the_variant():
    model = build_decoder({'variant': 'mu', 'vocabulary': 60, 'dropout': 0.1, 'remat': 'block'})
    assert model.size.vocabulary == 60
    assert model.size.width == VARIANTS['mu'].width
    assert (model.dropout, model.remat) == (0.1, 'block')
