"""Which files a pattern of a tar set names."""

import pytest

from alm_jax.config import ConfigError
from alm_jax.data.inputs import files

ALL_NAMES = '000 001 002 1 2 3 a0 a1 b0 b1'


@pytest.mark.parametrize(
    ('pattern', 'names'),
    [
        ('{000..002}.tar', '000 001 002'),
        ('{1..3}.tar', '1 2 3'),
        ('{a,b}{0..1}.tar', 'a0 a1 b0 b1'),
        ('*.tar', ALL_NAMES),
        ('[ab]?.tar', 'a0 a1 b0 b1'),
        ('', ALL_NAMES),
    ],
)
def test_patterns(tmp_path, pattern, names):
    for name in ALL_NAMES.split():
        (tmp_path / f'{name}.tar').touch()
    found = files.expand(str(tmp_path / pattern), '.tar')
    assert [path.stem for path in found] == names.split()
    assert files.base_of(str(tmp_path / pattern)) == tmp_path


def test_shards_that_do_not_exist_are_counted(tmp_path):
    for number in (0, 2, 3):
        (tmp_path / f'{number:03d}.tar').touch()
    with pytest.raises(ConfigError, match=r'2 of 5 do not exist: .*001\.tar, .*004\.tar'):
        files.expand(str(tmp_path / '{000..004}.tar'), '.tar')
