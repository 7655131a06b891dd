"""The Battle for Wesnoth: sounds of weapons, creatures and places, named after them."""

import collections
import functools
import re
from collections.abc import Iterator, Mapping

from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import reading, rules

PACKAGES = ('wesnoth-1.16-data',)

_SOUND = re.compile(r'usr/share/games/wesnoth/1\.16/(?:.*/)?sounds/(?P<title>.+)\.(?:ogg|wav)')

# file name without number -> noun phrase, label. 'miss' is the same weapon without a hit.
_RULES = (
    ('ambient/birds', 'birds singing', 'bird song'),
    ('ambient/campfire', 'a campfire crackling', 'fire'),
    ('ambient/morning', 'a rooster crowing in the morning', 'rooster'),
    ('ambient/night', 'crickets on a quiet night', 'insect'),
    ('ambient/ship', 'the creaking of a wooden ship', ''),
    ('ambient/wardrums', 'drums of war', ''),
    ('(axe|hatchet)(-miss)?', r'a swing of a \1', 'swoosh'),
    ('bat-flapping', 'a bat flapping its wings', ''),
    ('bat-hit', 'a bat being hit', ''),
    ('bite(-small)?', 'a bite', ''),
    ('bow-puny-fire(-miss)?', 'a burning arrow shot from a small bow', 'bow'),
    ('bow-puny(-miss)?', 'an arrow shot from a small bow', 'bow'),
    ('bow(-miss)?', 'an arrow shot from a bow', 'bow'),
    ('crossbow-fire(-miss)?', 'a burning bolt shot from a crossbow', 'bow'),
    ('crossbow(-miss)?', 'a bolt shot from a crossbow', 'bow'),
    ('cave-in', 'rocks falling as a cave collapses', ''),
    ('(claws|tail|pincers)', r'an attack with \1', ''),
    ('(club|flail|mace|staff|spear)(-miss)?', r'a blow with a \1', ''),
    ('(dagger-swish|dart|knife|throwing-knife(-miss)?)', 'a knife swishing', 'swoosh'),
    ('dragonstick(-miss)?', 'a fire weapon of a dragon', ''),
    ('drake-(die|hit)', 'a drake in a fight', ''),
    ('dwarf-laugh', 'a dwarf laughing', 'laughter'),
    ('witches-laugh', 'a witch laughing', 'laughter'),
    ('horse-(canter|elf-canter)', 'a horse cantering', 'hooves'),
    ('horse-(hit|die)', 'a horse neighing in pain', 'horse'),
    ('wolf-growl', 'a wolf growling', 'wolf'),
    ('wolf-(hit|die)', 'a wolf being hurt', ''),
    ('tusker-(charge|charge-miss|hit)', 'a wild boar grunting', 'pig'),
    ('tusker-die', 'a wild boar squealing', 'pig'),
    ('gryphon-shriek', 'the shriek of a gryphon', ''),
    ('human-female-(hit|die)', 'a woman groaning in pain', 'groan'),
    ('human-old-(hit|die)', 'an old man groaning in pain', 'groan'),
    ('human-(hit|die)', 'a man groaning in pain', 'groan'),
    ('groan', 'a groan', 'groan'),
    ('(dwarf|elf|ghoul|goblin|gryphon|lich|mermaid|mermen|naga)-(hit|die)', r'a \1 in pain', ''),
    ('orc-small-(hit|die)', 'a small orc in pain', ''),
    ('(ogre|orc|troll|yeti|zombie)-(hit|die|attack)', r'a \1 in pain', ''),
    ('wose-(hit|die|attack)', 'a walking tree in a fight', ''),
    ('(skeleton|skeleton-big)-(hit|die)', 'the bones of a skeleton breaking', ''),
    ('fist', 'a blow with a fist', ''),
    ('heal', 'a healing spell', ''),
    ('net', 'a net being thrown', ''),
    ('petrified', 'a creature turning to stone', ''),
    ('poison', 'poison at work', ''),
    ('slowed', 'a creature being slowed down', ''),
    ('ugg', 'a grunt', ''),
    ('entangle', 'plants entangling someone', ''),
    ('explosion', 'an explosion', 'explosion'),
    ('fanfare-short', 'a short fanfare', ''),
    ('(fire|flame-big|flame-big-miss|melee-fire|torch|torch-miss)', 'a burst of flames', ''),
    ('fuse', 'a fuse burning', 'fuse'),
    ('gold', 'gold coins', 'coins'),
    ('gunshot', 'a gunshot', 'gunshot'),
    ('thunderstick(-miss)?', 'a shot of a thunderstick', 'gunshot'),
    ('hiss(-big|-hit|-die)?', 'the hiss of a serpent', ''),
    (r'horn-signals/horn', 'a signal on a horn', ''),
    ('lightning', 'a stroke of lightning', 'thunder'),
    ('lightning-miss', 'lightning that misses', ''),
    ('magic-holy.*', 'a chant of holy magic', ''),
    ('magic.*', 'a magic spell', ''),
    ('miss', 'a weapon that misses', ''),
    ('(ink|mud-fist|mud-glob|squishy)(-hit|-miss|-strike)?', 'a squishy hit', ''),
    ('open-chest', 'a chest opening', ''),
    ('potion', 'a potion being drunk', ''),
    ('rumble', 'a rumble', ''),
    ('(sling|sling-big)(-miss)?', 'a stone shot from a sling', ''),
    ('sword', 'a swing of a sword', 'sword'),
    ('throw', 'something being thrown', 'swoosh'),
    ('wail(-long|-sml)?', 'a ghostly wail', ''),
    ('water-blast', 'a blast of water', 'splash'),
    ('wose-miss', 'a walking tree that misses', ''),
    ('bell', 'a bell', 'bell'),
    ('(button|checkbox|select|select-unit|slider)', 'a click of a game', ''),
    ('(arrive|chat.*|contract|expand|gamestart|join|leave|receive|timer)', 'a game signal', ''),
)


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Every sound; nothing is left out."""
    del dropped
    package = packages.get(PACKAGES[0])
    if package is None:
        return
    for member in package.members():
        match = _SOUND.fullmatch(member)
        if not match:
            continue
        name = rules.series(match['title'])
        rule = rules.first(_RULES, name)
        yield Clip(
            package='wesnoth',
            member=member,
            read=functools.partial(reading.read_audio, package, member),
            kind='sound',
            group='wesnoth/' + name.removesuffix('-miss'),
            title=match['title'],
            licence='GPL-2.0-or-later',
            label=rule.label,
            author='Wesnoth contributors',
            phrase=rule.phrase,
        )
