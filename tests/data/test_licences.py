"""Licences as Freesound, Clotho, Debian and the catalog write them."""

import pytest

from alm_jax.config import ConfigError
from alm_jax.data import index, record, sources
from alm_jax.data.hygiene import licences

COMMERCIAL = [
    'http://creativecommons.org/licenses/by/3.0/',
    'https://creativecommons.org/licenses/by/4.0/',
    'http://creativecommons.org/publicdomain/zero/1.0/',
    'Attribution',
    'Creative Commons 0',
    'CC0-1.0',
    'CC-BY-3.0',
    'CC BY 4.0',
    'CC BY-SA 4.0',
    'Attribution-ShareAlike 3.0 Unported',
    'Creative Commons Attribution 4.0 International',
    'CC-BY-3.0 and CC0-1.0',
    'GPL-2.0-or-later',
    'GPL-2+',
    'GPL-3.0-only',
    'LAL-1.3',
    'Expat',
    'MIT',
    'BSD-3-clause',
    'public-domain',
    'ODbL-1.0, DbCL-1.0',
]
NOT_COMMERCIAL = [
    '',
    'http://creativecommons.org/licenses/by-nc/3.0/',
    'https://creativecommons.org/licenses/by-nc-sa/4.0/',
    'http://creativecommons.org/licenses/by-nd/4.0/',
    'http://creativecommons.org/licenses/sampling+/1.0/',
    'Attribution NonCommercial',
    'Attribution-Non-Commercial 3.0',
    'CC BY-NC 4.0',
    'CC-BY-NC-SA-4.0',
    'CC-sampling-plus-1.0',
    'Sampling+',
    'RemArc: non-commercial',
    'academic use only; each clip also under the terms of its source',
    'Tampere University: non-commercial, academic',
    'NVIDIA OneWay Noncommercial (text); audio as its corpora say',
    # What is said of the text says nothing of the sound.
    'CC-BY-4.0 (text); audio under the terms of each YouTube video',
    'CC-BY-SA-4.0 (captions); audio under the Creative Commons licence of each track',
    'not stated; audio: AudioSet videos',
    'my own licence',
    'CC BY 4.0 with exceptions',
    'MIT but not for sale',
]


@pytest.mark.parametrize('text', COMMERCIAL)
def test_permits_commercial_use(text):
    assert licences.allows_commercial(text)


@pytest.mark.parametrize('text', NOT_COMMERCIAL)
def test_does_not_count_as_permitting_it(text):
    assert not licences.allows_commercial(text)


@pytest.mark.parametrize(
    ('text', 'named'),
    [
        ('http://creativecommons.org/licenses/by-nc/3.0/', 'CC-BY-NC-3.0'),
        ('CC BY-NC 3.0', 'CC-BY-NC-3.0'),
        ('Attribution NonCommercial 3.0', 'CC-BY-NC-3.0'),
        ('Attribution-NoDerivs 4.0 International', 'CC-BY-ND-4.0'),
        ('http://creativecommons.org/publicdomain/zero/1.0/', 'CC0-1.0'),
        ('GPL-2.0-only', 'GPL-2.0-only'),
    ],
)
def test_creative_commons_has_one_name(text, named):
    assert licences.name(text) == named


def test_a_training_set_keeps_what_may_be_sold(packaged_tiny):
    entry = {'name': 'packaged_sounds/tiny:train+test'}
    everything = sources.open_source(entry, packaged_tiny)
    entry['where'] = {'licence_allows': 'commercial'}
    kept = sources.open_source(entry, packaged_tiny)
    gone = set(everything.columns['licence']) - set(kept.columns['licence'])
    assert gone == {'CC-sampling-plus-1.0'}
    assert len(everything) == len(kept) + 1
    both = everything.where({'licence_allows': 'commercial', 'licence': ['CC0-1.0', 'absent']})
    assert set(both.columns['licence']) == {'CC0-1.0'}


def test_nothing_that_may_be_sold_is_told_with_the_licences(tmp_path):
    class Reader:
        index = index.Index.of(
            {**record.DEFAULTS, 'id': str(i), 'licence': NOT_COMMERCIAL[i]} for i in range(3)
        )

        def __len__(self):
            return 3

    source = sources.Source('mine', Reader())
    with pytest.raises(ConfigError, match=r'by-nc/3\.0'):
        source.where({'licence_allows': 'commercial'})
    with pytest.raises(ConfigError, match="Did you mean 'commercial'"):
        source.where({'licence_allows': 'comercial'})
