"""Sonic Pi samples: drums, tabla, guitar and studio effects; the prefix says which."""

import collections
import functools
import re
from collections.abc import Iterator, Mapping

from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import debian_copyright, reading, rules

PACKAGES = ('sonic-pi-samples',)

_SAMPLE = re.compile(r'(?:.*/)(?P<title>[\w-]+)\.(?:flac|wav)')
_COPYRIGHT = 'usr/share/doc/sonic-pi-samples/copyright'

# file name -> instrument.
_PLAYED = (
    ('bd_.*|drum_bass.*|drum_heavy_kick', 'bass drum'),
    ('drum_cymbal_.*|drum_splash.*', 'cymbal'),
    ('drum_cowbell', 'cowbell'),
    ('drum_(snare.*|roll)|sn_.*', 'snare drum'),
    ('drum_tom.*', 'tom tom'),
    ('tabla_.*', 'tabla'),
    ('bass_.*', 'synthesizer'),
    ('guit_.*', 'electric guitar'),
    ('ambi_choir', 'choir'),
    ('ambi_piano', 'piano'),
)
# file name -> noun phrase, label.
_RULES = (
    ('ambi_(glass_hum|glass_rub)', 'the rim of a glass being rubbed', ''),
    ('ambi_sauna', 'water hissing in a sauna', ''),
    ('ambi_(.*)', r'an ambient \1', ''),
    ('elec_(.*)', r'an electronic \1', ''),
    ('glitch_(.*)', r'a glitch of \1', ''),
    ('loop_3d_printer', 'a 3d printer at work', 'machine'),
    ('loop_(.*)', r'a music loop called \1', ''),
    ('mehackit_phone.*', 'sounds made on a phone', ''),
    ('mehackit_robot.*', 'a robot', ''),
    ('misc_burp', 'a burp', 'burp'),
    ('misc_cineboom', 'a boom from the cinema', ''),
    ('misc_crow', 'a crow cawing', 'crow'),
    ('perc_bell.*', 'a bell being struck', 'bell'),
    ('perc_door', 'a door closing', 'door'),
    ('perc_swash|perc_swoosh', 'a swoosh', 'swoosh'),
    ('perc_till', 'a cash till', 'cash register'),
    ('perc_snap.*', 'a snap of fingers', ''),
    ('perc_impact.*', 'an impact', ''),
    ('vinyl_(.*)', r'the \1 of a vinyl record', ''),
    ('rand-stream', 'white noise', ''),
)


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Every sample; nothing is left out."""
    del dropped
    package = packages.get(PACKAGES[0])
    if package is None:
        return
    licences = debian_copyright.parse(reading.read_text(package, _COPYRIGHT))
    for member in package.members():
        match = _SAMPLE.fullmatch(member)
        if not match:
            continue
        title = match['title']
        played, rule = rules.first(_PLAYED, title).phrase, rules.first(_RULES, title)
        stated = debian_copyright.find(licences, 'etc/samples/' + member.rpartition('/')[2])
        yield Clip(
            package='sonic_pi',
            member=member,
            read=functools.partial(reading.read_audio, package, member),
            kind='instrument' if played else 'sound',
            group='sonic_pi/' + rules.series(title),
            title=title,
            licence=stated.licence,
            label=played.replace('tom tom', 'tom-tom') or rule.label,
            author=stated.author,
            phrase='' if played else rule.phrase,
        )
