"""Planning columns: what is written is what is mapped, whole or in parts."""

import numpy as np
import pytest
import travelling
from hypothesis import given, settings
from hypothesis import strategies as st
from travelling import travelled

from alm_jax.config import ConfigError
from alm_jax.data import index, record

few = settings(max_examples=25, deadline=None, derandomize=True)
words = st.text(max_size=8)
rows_of = st.lists(
    st.fixed_dictionaries(
        {
            'id': words,
            'label': st.sampled_from(['', 'dog', 'größe', '犬']),
            'kind': words,
            'rate': st.integers(0, 400_000),
            'num_samples': st.integers(0, 2**40),
            'duration': st.floats(0, 1e5, width=32),
            'captions': st.lists(words, max_size=3),
            'recording_id': words,
        }
    ),
    max_size=40,
)


def columns(rows):
    return [record.columns_of({**record.DEFAULTS, **row}) for row in rows]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return tmp_path_factory.mktemp('index') / 'index.arrow'


@few
@given(rows_of, st.integers(1, 9))
def test_every_cell_comes_back_whatever_the_batches(place, rows, rows_a_batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, 'ROWS_A_BATCH', rows_a_batch)
        index.write(place, columns(rows), made_from='tests')
    read = index.Index.open(place)
    assert len(read) == len(rows)
    assert read.made_from == 'tests'
    for name in record.COLUMNS:
        wanted = [row[name] for row in columns(rows)]
        column = read.numpy(name)
        np.testing.assert_array_equal(column, np.array(wanted, column.dtype))
        for row in range(0, len(rows), 7):
            np.testing.assert_equal(read.value(name, row), column[row].item())
    parts = [(start, batch.column('id').to_pylist()) for start, batch in read.parts('id')]
    assert [text for _, part in parts for text in part] == [row['id'] for row in rows]
    assert all(start == sum(len(p) for _, p in parts[:i]) for i, (start, _) in enumerate(parts))


@few
@given(rows_of, st.data())
def test_rows_where_are_those_that_a_loop_would_keep(rows, data):
    found = index.Index.of({**record.DEFAULTS, **row} for row in rows)
    labels = data.draw(st.lists(st.sampled_from(['', 'dog', '犬', 'absent']), min_size=1))
    low = data.draw(st.floats(0, 1e5))
    condition = {'label': labels, 'duration': {'min': low}}
    expected = [
        i for i, row in enumerate(rows) if row['label'] in labels and row['duration'] >= low
    ]
    assert found.rows_where(condition).tolist() == expected
    assert found.rows_where({}).tolist() == list(range(len(rows)))


def test_an_index_travels_as_its_path(place):
    index.write(place, columns([{'id': str(i)} for i in range(1000)]), 'x')
    read = index.Index.open(place)
    assert travelling.size(read) < 400
    assert travelled(read).numpy('id').tolist() == read.numpy('id').tolist()
    in_memory = index.Index.of([{**record.DEFAULTS, 'id': 'a'}])
    assert travelled(in_memory).value('id', 0) == 'a'


def test_the_digest_names_the_content(place):
    index.write(place, columns([{'id': 'a'}]), 'one')
    one = index.Index.open(place).digest
    index.write(place, columns([{'id': 'a'}]), 'two')
    assert index.Index.open(place).digest not in ('', one)
    assert index.Index.of([record.DEFAULTS]).digest == ''


@pytest.mark.parametrize(
    ('condition', 'message'),
    [
        ({'lable': 'dog'}, "Did you mean 'label'"),
        ({'duration': {'max': 3, 'above': 1}}, 'neither min nor max'),
        ({'label': {'max': 3}}, 'only numbers have a range'),
    ],
)
def test_impossible_conditions_are_refused(condition, message):
    with pytest.raises(ConfigError, match=message):
        index.Index.of([record.DEFAULTS]).rows_where(condition)


@pytest.mark.parametrize('keep', [0, 10, -10])
def test_a_damaged_index_is_an_error_that_names_it(place, keep):
    index.write(place, columns([{'id': 'a'}]))
    place.write_bytes(place.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r'index\.arrow'):
        index.Index.open(place)
