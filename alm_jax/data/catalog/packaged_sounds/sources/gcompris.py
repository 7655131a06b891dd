"""GCompris, educational games: sounds in Qt resources, among them 26 real instruments.

Nine farm animals have sentences of their own ("The cow goes 'moo'.") in the activity's QML.
"""

import collections
import functools
import re
from collections.abc import Iterator, Mapping

import numpy as np

from alm_jax.audio.decode import decode, to_pcm16
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import debian_copyright, reading, rules
from alm_jax.data.catalog.packaged_sounds.sources.qt_resource import parse_rcc

PACKAGES = ('gcompris-qt-data',)

_RESOURCES = re.compile(r'usr/share/gcompris-qt/rcc/[\w-]+\.rcc')
_COPYRIGHT = 'usr/share/doc/gcompris-qt-data/copyright'
_FARM = 'gcompris/src/activities/explore_farm_animals/resource/board/board1.qml'
_AUDIO = ('.wav', '.ogg')
_INSTRUMENTS = {  # file names that differ from the label
    'flute_traversiere': 'flute',
    'horn': 'french horn',
}

# activity/file name without suffix -> noun phrase, label.
_RULES = (
    ('align4_2players/slide', 'a game piece sliding', ''),
    ('babymatch/(slideIn|slideOut)', 'a quick swoosh', 'swoosh'),
    ('babymatch/drop', 'a game piece dropping', ''),
    ('ballcatch/.*', 'a short exclamation', ''),
    ('canal_lock/door_(open|close)', 'the gate of a canal lock grinding', ''),
    ('canal_lock/water_fill', 'water filling a canal lock', 'flowing water'),
    ('canal_lock/lock', 'the clink of a lock', ''),
    ('chronos/.*', 'the sound of an era of history', ''),
    ('clickgame/drip', 'a drip of water', 'drip'),
    ('(clickgame|watercycle)/bubble', 'bubbles in water', 'bubbles'),
    ('core/water', 'water splashing', 'splash'),
    ('core/crash', 'a crash', ''),
    ('core/audioclick', 'a click', 'click'),
    ('core/bleep', 'a bleep', 'beep'),
    ('core/brick', 'a brick being set down', ''),
    ('core/intro', 'the opening tune of a game', ''),
    ('core/(win|bonus|completetask)', 'a jingle for a finished task', ''),
    ('core/.*', 'a short sound effect', ''),
    ('(erase|redraw)/eraser.*', 'an eraser rubbing', ''),
    ('redraw/brush', 'a brush stroke', ''),
    ('explore_farm_animals/owl', 'an owl hooting', 'owl'),
    ('explore_farm_animals/pig', 'a pig grunting', 'pig'),
    ('explore_farm_animals/chickens', 'chickens clucking', 'chicken'),
    ('explore_farm_animals/cat', 'a cat meowing', 'cat'),
    ('explore_farm_animals/horse', 'a horse neighing', 'horse'),
    ('explore_farm_animals/cow', 'a cow mooing', 'cow'),
    ('explore_farm_animals/dog', 'a dog barking', 'dog'),
    ('explore_farm_animals/duck', 'a duck quacking', 'duck'),
    ('explore_farm_animals/sheep', 'a sheep bleating', 'sheep'),
    ('explore_world_music/africa', 'a djembe accompaniment from Africa', ''),
    ('explore_world_music/america', 'rock and roll from America', ''),
    ('explore_world_music/australia', 'a didgeridoo from Australia', ''),
    ('explore_world_music/beethoven', 'an orchestra playing Beethoven', ''),
    ('explore_world_music/ireland', 'a fiddle tune from Ireland', ''),
    ('explore_world_music/italy', 'an opera singer from Italy', ''),
    ('explore_world_music/japan', 'taiko drums from Japan', ''),
    ('explore_world_music/mexico', 'a mariachi band from Mexico', ''),
    ('explore_world_music/middleeast', 'a song from the Middle East', ''),
    ('gnumch-equality/eat', 'something being eaten', ''),
    ('guessnumber/helicopter', 'a helicopter', 'aircraft'),
    ('melody/knock', 'a knock', 'knock'),
    ('memory-sound/LRStartAndStopCarEngine.*', 'a car engine starting and stopping', 'engine'),
    ('memory-sound/LRFireballs.*', 'fireballs', ''),
    ('memory-sound/LRObject_falling.*', 'an object falling', ''),
    ('memory-sound/LRBuddhist_gong.*', 'a Buddhist gong', ''),
    ('memory-sound/LRFactory_noise.*', 'factory noise', ''),
    ('memory-sound/LRRing.*', 'a ringing tone', ''),
    ('memory-sound/LRHits.*', 'hits on wood', ''),
    ('memory-sound/LRDoor_Open.*', 'a door opening', 'door'),
    ('memory-sound/LRTrain_slowing_down.*', 'a train slowing down', 'train'),
    ('memory-sound/LRBark.*', 'a dog barking', 'dog'),
    ('memory-sound/LRApplauses.*', 'applause', 'applause'),
    ('memory-sound/LRHeart_beat.*', 'a heart beating', 'heartbeat'),
    ('memory-sound/LRFrogsInPond.*', 'frogs in a pond during a storm', 'frog'),
    ('memory-sound/LRRain_in_garden.*', 'rain in a garden', 'rain'),
    ('memory-sound/LRWeird.*', 'a weird sound', ''),
    ('memory-sound/LRLaPause.*', 'a quiet piece of piano music', ''),
    ('memory/card_flip', 'a card being flipped', ''),
    ('mining/pickaxe', 'a pickaxe striking rock', 'metal'),
    ('mining/realrainbow', 'a sparkling jingle', ''),
    ('money/money.*', 'coins', 'coins'),
    ('morse_code/silence', 'silence', ''),
    ('morse_code/(dash|dot)', r'a \1 of Morse code', 'beep'),
    ('(nine_men_morris|play_rhythm|tic_tac_toe)/click', 'a click', 'click'),
    ('railroad/train', 'a steam train whistling', 'train'),
    ('reversecount/icy_walk', 'a walk on ice', 'footsteps'),
    ('scalesboard/metal_hit', 'a hit on metal', 'metal'),
    ('target/arrow', 'an arrow hitting a target', 'bow'),
    ('traffic/car', 'a car', 'engine'),
    ('watercycle/harbor.*', 'a harbour', ''),
    ('watercycle/apert', 'a whoosh', 'swoosh'),
)
_PLAYED = (  # the same names -> instrument
    (r'instruments/(.*)', r'\1'),
    ('melody/xylofon_son.*', 'xylophone'),
    ('memory-sound/guitar_.*', 'guitar'),
)


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Every wav and ogg file of the resources; nothing is left out."""
    del dropped
    package = packages.get(PACKAGES[0])
    if package is None:
        return
    licences = debian_copyright.parse(reading.read_text(package, _COPYRIGHT))
    sentences = _farm_sentences(package)
    for resource in filter(_RESOURCES.fullmatch, package.members()):
        for path in sorted(_files(package, resource)):
            if path.endswith(_AUDIO):
                yield _clip(package, resource, path, licences, sentences)


def _clip(package: Package, resource: str, path: str, licences: list, sentences: dict) -> Clip:
    title = _title(path)
    played = rules.first(_PLAYED, title).phrase.replace(' ', '_')
    rule = rules.first(_RULES, title)
    stated = debian_copyright.find(licences, path.removeprefix('gcompris/'))
    return Clip(
        package='gcompris',
        member=f'{resource}#{path}',
        read=functools.partial(_read, package, resource, path),
        kind='instrument' if played else 'sound',
        group='gcompris/' + rules.series(re.sub(r'_LA.*$', '', title)),
        title=title,
        licence=stated.licence,
        label=_INSTRUMENTS.get(played, played).replace('_', ' ') or rule.label,
        author=stated.author,
        phrase=rule.phrase,
        sentences=sentences.get(path, ()),
    )


def _title(path: str) -> str:
    """'gcompris/src/activities/mining/resource/pickaxe.wav' -> 'mining/pickaxe'."""
    folders = path.removeprefix('gcompris/src/').removeprefix('activities/').split('/')
    return f'{folders[0]}/{folders[-1].rpartition(".")[0]}'


def _farm_sentences(package: Package) -> dict[str, tuple[str, ...]]:
    """path of the recording -> the first sentence that the game tells about the animal."""
    resource = 'usr/share/gcompris-qt/rcc/explore_farm_animals.rcc'
    if resource not in package.members():
        return {}
    board = reading.as_text(_files(package, resource).get(_FARM, b''), f'{package.name}: {_FARM}')
    said = re.findall(
        r'"text": qsTr\("([^".]+\.)[^"]*"\),\s*"audio": .*?"qrc:/([^"]+)\.\$CA"', board
    )
    return {f'{recording}.ogg': (sentence,) for sentence, recording in said}


@functools.lru_cache(maxsize=2)  # the clips of a resource are read one after the other
def _files(package: Package, resource: str) -> dict[str, bytes]:
    return parse_rcc(package.read(resource), f'{package.name}: {resource}')


def _read(package: Package, resource: str, path: str) -> tuple[np.ndarray, int]:
    x, rate = decode(_files(package, resource)[path], f'{package.name}: {resource}#{path}')
    return to_pcm16(x), rate
