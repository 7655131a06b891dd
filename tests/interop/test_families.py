"""What holds for every family: a reference is named, and README says that the family is there."""

import pathlib

import pytest

from alm_jax.interop import families

README = pathlib.Path(__file__).parents[2] / 'README.md'
FAMILIES = {family.name: family for family in families.all_families().values()}


@pytest.mark.parametrize('name', FAMILIES)
def test_a_family_is_documented_with_its_reference(name):
    section = README.read_text().partition("## Other people's models")[2].partition('\n## ')[0]
    assert name in section
    assert FAMILIES[name].reference
    unproven = next(line for line in section.splitlines() if 'UNPROVEN' in line)
    assert ('UNPROVEN' in FAMILIES[name].reference) == (name in unproven)
