"""Tables in .pkl files are read without pickle: plain values alone, and never code."""

import pickle
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.data.catalog import plain_tables

few = hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
scalars |= st.text() | st.binary(max_size=300)
keys = st.text() | st.integers() | st.tuples(st.text(), st.integers())
tables = st.recursive(
    scalars | st.sets(st.integers(), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner, inner)
        | st.dictionaries(keys, inner, max_size=5)
    ),
    max_leaves=20,
)


@few
@hypothesis.given(tables, st.integers(4, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back(value, protocol):
    assert plain_tables.parse(pickle.dumps(value, protocol), 'x.pkl') == value


texts = st.dictionaries(st.text(), st.lists(st.text() | st.integers() | st.floats(-9, 9)))


@few
@hypothesis.given(texts, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_tables_of_text_come_back_from_every_protocol(value, protocol):
    assert plain_tables.parse(pickle.dumps(value, protocol), 'x.pkl') == value


def test_python_2_text_is_utf8_or_latin1():
    def old(raw):
        return plain_tables.parse(b'\x80\x02U' + bytes([len(raw)]) + raw + b'.', 'x.pkl')

    assert old('größer'.encode()) == 'größer'
    assert old('größer'.encode('latin-1')) == 'größer'
    assert plain_tables.parse(b"S'caf\\xc3\\xa9'\n.", 'x.pkl') == 'café'


class Hostile:
    """Says how it would be made: by a call."""

    def __reduce__(self):
        return exec, ('raise SystemExit(1)',)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_would_run_code_is_refused_by_name(protocol):
    for value in (Hostile(), {'a': [Hostile()]}, Hostile, complex(1, 2)):
        with pytest.raises(ConfigError, match=r'x\.pkl: operation .* would name or call code'):
            plain_tables.parse(pickle.dumps(value, protocol), 'x.pkl')


@few
@hypothesis.given(st.binary(max_size=120), tables, st.integers(0, 300), st.integers(0, 40))
def test_hostile_bytes_are_named(noise, value, start, length):
    whole = pickle.dumps(value, 4)
    for content in (noise, whole[:start], whole[:start] + noise + whole[start + length :]):
        assert 'x.pkl' in complaint(content)


def complaint(content):
    """What is said of it; only a ConfigError is a way of saying it."""
    try:
        plain_tables.parse(content, 'x.pkl')
    except ConfigError as error:
        return str(error)
    return 'x.pkl is well formed'


def test_tuples_in_tuples_without_end_are_no_keys():
    nested = b'\x80\x02}' + b')' + b'\x85' * 200_000 + b'K\x01s.'
    with pytest.raises(ConfigError, match='key'):
        plain_tables.parse(nested, 'x.pkl')


def test_pickle_is_not_even_imported_by_it():
    code = (
        'import sys; sys.modules["pickle"] = None; sys.modules["_pickle"] = None\n'
        'import importlib.util as u\n'
        f'spec = u.spec_from_file_location("p", {plain_tables.__file__!r})\n'
        'import types; config = types.ModuleType("alm_jax.config")\n'
        'config.ConfigError = ValueError; sys.modules["alm_jax.config"] = config\n'
        'sys.modules["alm_jax"] = types.ModuleType("alm_jax")\n'
        'm = u.module_from_spec(spec); sys.modules["p"] = m; spec.loader.exec_module(m)\n'
        'print(m.parse(b"\\x80\\x02}(X\\x01\\x00\\x00\\x00aK\\x01u.", "x"))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'a': 1}"
