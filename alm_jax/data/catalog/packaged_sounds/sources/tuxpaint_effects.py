"""Tux Paint stamps, sound effects: the noise that the thing on a stamp makes.

NAME.ogg lies beside NAME.txt, whose first line is English ("A rooster."). The readings of those
texts are in tuxpaint.py. Spoken letters, digits and rules of games are not effects.
"""

import collections
import functools
import re
from collections.abc import Iterator, Mapping

from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import reading, rules

PACKAGES = ('tuxpaint-stamps-default',)

_STAMPS = 'usr/share/tuxpaint/stamps/'
_EFFECT = re.compile(rf'{_STAMPS}(?P<title>(?!symbols/(?:alphabets|math)/).+)\.(?:ogg|wav)')
_READING = re.compile(r'.*_desc(?:_.*)?')
# Made from the recording of another animal.
_BORROWED = ('animals/mammals/badger', 'animals/mammals/bovines/mountaingoat')

# Stamps that show what is heard; a sign, a hat or a gift only stand for it.
_SHOWS_THE_SOURCE = re.compile(r'(?:animals|hobbies|household|vehicles/emergency)/\S+ An? ')

# stamp -> noun phrase, label.
_RULES = (
    ('animals/amphibians/frog', 'a frog croaking', 'frog'),
    ('animals/birds/(blackbird|lark|cuckoo)', r'a \1 singing', 'bird song'),
    ('animals/birds/crow', 'a crow cawing', 'crow'),
    ('animals/birds/duck', 'a duck quacking', 'duck'),
    ('animals/birds/drake', 'a drake on the water', ''),
    ('animals/birds/gander', 'a gander calling', 'goose'),
    ('animals/birds/hen', 'a brown hen clucking', 'chicken'),
    ('animals/birds/heron.*', 'a great blue heron calling', ''),
    ('animals/birds/owl', 'an owl hooting', 'owl'),
    ('animals/birds/rooster', 'a colorful rooster crowing', 'rooster'),
    ('animals/birds/seagull', 'a seagull crying', 'seagull'),
    ('animals/birds/tucan', 'a toucan calling', ''),
    ('animals/birds/turkey', 'a turkey gobbling', 'turkey'),
    ('animals/birds/(penguin|quetzal|vulture|nandou)', r'a \1 calling', ''),
    ('animals/insects/(bee|hornet|mosquito)', r'a \1 buzzing', 'insect'),
    ('animals/insects/grasshopper', 'a grasshopper chirping', 'insect'),
    ('animals/insects/xanthia', 'a moth', ''),
    ('animals/lizards/iguana', 'an iguana', ''),
    ('animals/mammals/apes/chimp', 'a chimpanzee screeching', 'monkey'),
    ('animals/mammals/apes/gorilla', 'a gorilla roaring', ''),
    ('animals/mammals/aquatic/whale', 'a whale calling', 'whale'),
    ('animals/mammals/aquatic/orca', 'an orca calling', 'whale'),
    ('animals/mammals/aquatic/(dolphin|sea_lion)', r'a \1 calling', ''),
    ('animals/mammals/bears/bear', 'a bear growling', 'bear'),
    ('animals/mammals/bovines/(cow|cow_white)', 'a cow mooing', 'cow'),
    ('animals/mammals/bovines/bull', 'a bull bellowing', 'cow'),
    ('animals/mammals/bovines/bison', 'a bison bellowing', ''),
    ('animals/mammals/bovines/goat', 'a goat bleating', 'goat'),
    ('animals/mammals/bovines/(ram|mountaingoat)', 'a ram bleating', 'goat'),
    ('animals/mammals/bovines/sheep', 'a sheep bleating', 'sheep'),
    ('animals/mammals/bovines/sheep_lamb', 'a lamb bleating', 'sheep'),
    ('animals/mammals/camel/(camel|dromedary)', r'a \1 groaning', ''),
    ('animals/mammals/cats/(lion|tiger)', r'a \1 roaring', 'big cat'),
    ('animals/mammals/deer/.*', 'a deer calling', ''),
    ('animals/mammals/dogs/dog', 'a dog barking', 'dog'),
    ('animals/mammals/dogs/fox', 'a fox barking', 'fox'),
    ('animals/mammals/elephant', 'an elephant trumpeting', 'elephant'),
    ('animals/mammals/equines/donkey', 'a donkey braying', 'donkey'),
    ('animals/mammals/equines/horse', 'a horse neighing', 'horse'),
    ('animals/mammals/equines/zebra', 'a zebra calling', ''),
    ('animals/mammals/(pig|pig_golden|pig_golden2)', 'a pig grunting', 'pig'),
    ('animals/mammals/rodents/mouse', 'a mouse squeaking', 'mouse'),
    ('animals/mammals/rodents/squirrel', 'a squirrel calling', ''),
    ('animals/mammals/rodents/rabbit', 'a rabbit squealing', ''),
    ('animals/(?:mammals|marsupials)/(?:.*/)?(.*)', r'a \1', ''),
    ('food/fruit/apple_red', 'a bite into a red apple', ''),
    ('hobbies/camera_35mm', 'a camera taking a photograph', 'camera'),
    ('household/Washing-machine', 'a washing machine', 'machine'),
    ('household/arttools/scissors.*', 'a pair of scissors', 'scissors'),
    ('household/dishes/bottle', 'the clink of a bottle', ''),
    ('household/dishes/glass', 'a glass being filled with water', 'water filling'),
    ('household/kettle', 'an electric kettle', ''),
    ('household/rubberduck', 'the squeak of a rubber duck', ''),
    ('household/toilet', 'a toilet flushing', 'toilet flush'),
    ('household/tools/hammer', 'a hammer striking', 'hammering'),
    ('household/tools/mallet_metal', 'a large metal mallet striking', 'hammering'),
    ('household/tools/saw', 'a saw cutting wood', 'sawing'),
    ('household/vacuum_cleaner', 'a vacuum cleaner', 'vacuum cleaner'),
    ('military/final-roll-call', 'a trumpet at the final roll call', ''),
    ('naturalforces/lightningbolt', 'a lightning bolt and its thunder', 'thunder'),
    ('seasonal/christmas/gift', 'a gift being unwrapped', 'paper'),
    ('seasonal/christmas/santahat', 'jingling Christmas bells', 'bell'),
    ('seasonal/christmas/hard_candy', 'someone enjoying hard candy', ''),
    ('seasonal/halloween/bat_left', 'a bat squeaking', ''),
    ('seasonal/halloween/blackcat', 'a black cat', 'cat'),
    ('seasonal/halloween/(ghost|spider)', r'a Halloween \1', ''),
    ('seasonal/hanukkah/dreydl.*', 'a rule of the dreidel game being read', ''),
    ('seasonal/newyears/fireworks', 'big fireworks', 'fireworks'),
    ('space/apollo_lander', 'a radio message from the Apollo lunar lander', ''),
    ('symbols/faces/(.*)', r'an exclamation of a \1 person', ''),
    ('town/flags/checkeredflag', 'a race with a checkered flag', ''),
    ('town/roadsigns/.*', 'the sounds at a road sign', ''),
    ('vehicles/emergency/firetruck', 'the siren of a fire truck', 'siren'),
    ('vehicles/ship/.*', 'sounds under the sea', ''),
)
_PLAYED = (  # stamp -> instrument
    (r'hobbies/music/string/(cello|violin)', r'\1'),
    ('hobbies/music/wind/bassoon', 'bassoon'),
    ('hobbies/music/percussion/cymbal.*', 'cymbal'),
    ('hobbies/music/percussion/drumkit', 'drum kit'),
    ('hobbies/music/percussion/drum_tomtom.*', 'tom tom'),
)


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """The effects, but for two that repeat another animal's, counted in ``dropped``."""
    dropped = collections.Counter() if dropped is None else dropped
    package = packages.get(PACKAGES[0])
    if package is None:
        return
    members = package.members()
    for member in members:
        match = _EFFECT.fullmatch(member)
        if not match or _READING.fullmatch(match['title']):
            continue
        if match['title'] in _BORROWED:
            dropped["tuxpaint_effects: another animal's recording"] += 1
            continue
        yield _clip(package, member, match['title'], members)


def _clip(package: Package, member: str, title: str, members: list[str]) -> Clip:
    rule, played = rules.first(_RULES, title), rules.first(_PLAYED, title).phrase
    text = f'{_STAMPS}{title}.txt'
    lines = reading.read_text(package, text).splitlines() if text in members else []
    sentence = lines[0].strip() if lines else ''
    return Clip(
        package='tuxpaint',
        member=member,
        read=functools.partial(reading.read_audio, package, member),
        kind='instrument' if played else 'sound',
        group='tuxpaint-effects/' + rules.series(re.sub('_(open|closed|white|lamb)$', '', title)),
        title=sentence or title,
        licence='GPL-2.0-only',
        label=played.replace('tom tom', 'tom-tom') or rule.label,
        author='Tux Paint contributors',
        phrase=rule.phrase,
        sentences=(sentence,) if _SHOWS_THE_SOURCE.match(f'{title} {sentence}') else (),
    )
