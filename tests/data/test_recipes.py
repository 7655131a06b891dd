"""Objects made again from JSON and arrays: the same, each once, and nothing else is run."""

import collections
import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
import travelling
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from travelling import travelled

from alm_jax.data import plan, pools, recipes
from alm_jax.data.inputs.tree import Fetch

few = settings(max_examples=100, deadline=None, derandomize=True)
texts = st.text(st.characters(), max_size=8)  # file names may hold halves of surrogate pairs
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
leaves = scalars | st.binary(max_size=8) | st.builds(pathlib.PurePath('/a').joinpath, st.just('b'))
values = st.recursive(
    leaves.map(lambda leaf: pathlib.Path(leaf) if isinstance(leaf, pathlib.PurePath) else leaf),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(scalars, inner, max_size=4)
        | st.tuples(inner, inner).map(lambda pair: plan.Row((pair,), key=2**64 - 1))
    ),
    max_leaves=12,
)


@few
@given(values)
def test_plain_data_comes_back(value):
    again = travelled(value)
    assert again == value
    assert repr(again) == repr(value)  # True is not 1, and a tuple no list


@few
@given(
    st.lists(
        arrays_of.arrays(
            st.sampled_from(['<i2', '<u8', '<f4', '>f8', '?', '<c8', '<U3', 'S2']),
            arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
        ),
        max_size=4,
    )
)
def test_arrays_come_back_where_nothing_writes(arrays):
    again = travelled([*arrays, *(array.T for array in arrays)])
    for one, other in zip([*arrays, *(array.T for array in arrays)], again, strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
        assert not other.flags.writeable
    scalar = travelled(np.float32(0.1))
    assert (type(scalar), scalar) == (np.float32, np.float32(0.1))


def test_objects_are_made_once_each():
    fetch = Fetch(pathlib.Path('/a'))
    pool = pools.Pool((3,), np.arange(3, dtype=np.uint32))
    one, (other, again) = travelled([fetch, (fetch, pool)])
    assert one is other
    assert one({'id': 'b.wav'}) == pathlib.Path('/a/b.wav')
    assert again.records(0, 2) == (2,)


def test_functions_and_slices_are_those_of_their_modules():
    assert travelled((plan.plan, pools.Pool)) == (plan.plan, pools.Pool)
    assert travelled(slice(1, None, 2)) == slice(1, None, 2)


class Plain:
    """Of no known form."""


@dataclasses.dataclass
class WithLambda:
    function: object = None


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (lambda: 0, r'<lambda> is not known in another process'),
        ([{'a': (WithLambda(lambda: 0),)}], r'<lambda> is not known in another process'),
        (''.join, r'not known in another process|cannot be made again'),
        (Plain(), r'Plain cannot be made again'),
        (collections.OrderedDict(a=1), r'OrderedDict cannot be made again'),
        (np.array([Plain()], object), r'ndarray cannot be made again'),
        (np.zeros(2, [('a', 'i4')]), r'ndarray cannot be made again'),
    ],
)
def test_what_cannot_be_made_again_is_refused(value, message):
    with pytest.raises(TypeError, match=message):
        recipes.write(value)


def test_functions_of_the_main_module_are_refused(monkeypatch):
    monkeypatch.setattr(Plain, '__module__', '__main__')
    with pytest.raises(TypeError, match=r'__main__\.Plain is not known'):
        recipes.write(Plain)


def test_a_recipe_names_nothing_that_could_be_run():
    """Only numbers of the list that the program of the reading process holds."""
    with travelling.written(Fetch(pathlib.Path('/a'))) as recipe:
        text = recipe.buffer.mapped()[: recipe.size].decode()
        assert 'Fetch' not in text
        assert 'alm_jax' not in text
        assert recipe.callables == ['alm_jax.data.inputs.tree.Fetch']
        with pytest.raises(IndexError):
            recipes.read(recipe.buffer, recipe.size, [])
    forged = json.dumps({'steps': [], 'value': {'eval': '1'}, 'arrays': []}).encode()
    with travelling.written('x' * len(forged)) as recipe:
        recipe.buffer.mapped()[: len(forged)] = forged
        with pytest.raises(ValueError, match=re.escape("no 'eval'")):
            recipes.read(recipe.buffer, len(forged), [])
