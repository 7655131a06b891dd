"""UFO: Alien Invasion: a zip container (.pk3) whose folders and names say what is heard."""

import collections
import functools
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from alm_jax import config as config_lib
from alm_jax.audio.decode import decode, to_pcm16
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import debian_copyright, reading, rules

PACKAGES = ('ufoai-sound',)

_MEMBER = 'usr/share/games/ufoai/base/0snd.pk3'
_COPYRIGHT = 'usr/share/doc/ufoai-sound/copyright'
_FOLDER, _SUFFIX = 'sound/', '.ogg'
_MAX_BYTES = 16 << 20  # of one sound

# folder/name -> noun phrase, label. Aliens and drones sound like nothing on earth: no label.
_RULES = (
    ('aliens/bloodspider/move', 'a giant spider moving', ''),
    ('aliens/hovernet/move1', 'a hovering machine moving', ''),
    (r'aliens/.*/(die|hurt|attack)\d*', 'an alien creature in a fight', ''),
    ('ambience/alienbase-bubbles', 'bubbles in an alien base', ''),
    ('ambience/arcticwind', 'arctic wind', 'wind'),
    ('ambience/bloodspiderwalk', 'giant spiders walking', ''),
    ('ambience/city_abnd.*', 'the atmosphere of an abandoned city', ''),
    ('ambience/creak', 'a creak', ''),
    ('ambience/cricket_loop', 'crickets chirping', 'insect'),
    ('ambience/disco', 'the beat of a disco from afar', ''),
    (r'ambience/fire\d*', 'a fire burning', 'fire'),
    ('ambience/firesoft', 'a soft fire burning', 'fire'),
    ('ambience/smallfire', 'a small fire burning', 'fire'),
    (r'ambience/hum\d*', 'an electric hum', ''),
    ('ambience/jingle', 'a wind chime jingling', 'bell'),
    ('ambience/jingle2', 'a jingle', ''),
    ('ambience/lights_loop', 'buzzing lights', ''),
    ('ambience/machine1', 'a machine humming', 'machine'),
    ('ambience/minepump03', 'the pump of a mine', ''),
    ('ambience/radiomessage', 'a radio message', 'radio'),
    ('ambience/sand-city', 'the atmosphere of a desert city', ''),
    ('ambience/sparks(_short)?', 'electric sparks', 'electricity'),
    ('ambience/steam', 'steam escaping', 'steam'),
    (r'ambience/thunder\d', 'thunder', 'thunder'),
    ('ambience/tv_newswav', 'television news', ''),
    ('ambience/tv_static', 'static on a television', 'radio'),
    ('ambience/ufo_night_atm', 'the atmosphere of a night', ''),
    (r'ambience/water\d*', 'running water', 'flowing water'),
    ('ambience/waterfontain', 'a water fountain', 'flowing water'),
    ('ambience/wind_turbine', 'a wind turbine', 'machine'),
    ('ambience/droning.*', 'a droning sound', ''),
    ('ambience/.*', 'alien machinery', ''),
    (r'civilians/civfemscream\d+a', 'a woman screaming', 'scream'),
    (r'civilians/civfemdeath\d+a', 'a woman screaming as she dies', 'scream'),
    (r'civilians/civmale(death|hurt)\d+a', 'a man screaming in pain', 'scream'),
    (r'(civilians|soldiers)/male(death|hurt)\d+', 'a man groaning in pain', 'groan'),
    (r'soldiers/female(death|hurt)\d+', 'a woman groaning in pain', 'groan'),
    ('doors/creak_low_short', 'the creak of a door', 'door'),
    (r'doors/door\d-(open|close)', 'a door moving', 'door'),
    ('doors/open_close', 'a door opening and closing', 'door'),
    (r'footsteps/(carpet|dirt|grass|gravel|metal|sand)\d*', r'footsteps on \1', 'footsteps'),
    (r'footsteps/(snow|stone|tile|wood|linoleum)\d*', r'footsteps on \1', 'footsteps'),
    (r'footsteps/hitground\d', 'feet hitting the ground after a jump', ''),
    (r'footsteps/splash\d', 'footsteps splashing through water', 'splash'),
    ('footsteps/water_(in|out)', 'someone stepping through water', 'splash'),
    ('footsteps/water_under', 'someone moving under water', ''),
    ('footsteps/(crouch|stand)', 'clothes rustling as someone moves', ''),
    ('geoscape/basealert', 'an alert in a military base', ''),
    ('geoscape/combat-gun', 'the gun of a fighter', 'gunshot'),
    ('geoscape/combat-(explosion|rocket-exp)', 'an explosion in combat', 'explosion'),
    ('geoscape/combat-rocket', 'a rocket being fired', ''),
    ('geoscape/combat-air(laser|plasma).*', r'a \1 weapon in the air', ''),
    ('geoscape/.*', 'a signal of a game', ''),
    ('impact/(bullet|nail)-impact', r'a \1 hitting a wall', ''),
    ('impact/(bullet|knife|nail)-bodyimpact', r'a \1 hitting a body', ''),
    ('impact/knife-impact', 'a knife hitting a wall', ''),
    ('impact/water(bullet)?-impact', 'something hitting water', 'splash'),
    ('impact/(laser|plasma).*', r'the impact of a \1 weapon', ''),
    (r'misc/breakelectric\d+', 'an electric device breaking with sparks', 'electricity'),
    (r'misc/breakglass\d+', 'glass breaking', 'glass'),
    (r'misc/breakmetal\d+', 'a piece of metal breaking', 'metal'),
    (r'misc/breakwood\d+', 'wood breaking', 'wood breaking'),
    ('misc/electro', 'an electric discharge', 'electricity'),
    ('misc/.*', 'a signal of a game', ''),
    ('seq/(alien|human)flyby', 'a spacecraft flying by', ''),
    ('seq/sword-fly', 'a sword flying through the air', 'sword'),
    ('seq/sword-hit', 'a sword hitting', 'sword'),
    ('ugv/diesel-(idle|move|stop)', 'a diesel engine', 'engine'),
    ('ugv/hover-(idle|move|stop)', 'a hovering machine', ''),
    (r'ui/beep\d', 'a beep', 'beep'),
    (r'ui/click\d', 'a click', 'click'),
    ('ui/.*', 'a signal of a game', ''),
    (r'weapons/bullet-chaingun-\d+x', 'a burst of a chain gun', 'gunshot'),
    (r'weapons/bullet-hmg-\d+x', 'a burst of a heavy machine gun', 'gunshot'),
    (r'weapons/bullet-(rifle|shotgun|smg)-(1)x', r'a shot of a \1', 'gunshot'),
    (r'weapons/bullet-(rifle|shotgun)-\d+x', r'several shots of a \1', 'gunshot'),
    (r'weapons/bullet-smg-\d+x', 'a burst of a submachine gun', 'gunshot'),
    ('weapons/bullet-smg', 'a shot of a submachine gun', 'gunshot'),
    ('weapons/bullet-(pistol|rifle|shotgun).*', r'a shot of a \1', 'gunshot'),
    ('weapons/bullet-sniper', 'a shot of a sniper rifle', 'gunshot'),
    ('weapons/bullet-(flechette|heavybolter|bolter)', r'a shot of a \1 gun', 'gunshot'),
    ('weapons/bullet-.*', 'a futuristic gun', ''),
    ('weapons/electro-taser.*', 'a taser', 'electricity'),
    ('weapons/explosion-smoke', 'a smoke grenade', ''),
    ('weapons/explosion-(fire|plasma)', r'a \1 explosion', 'explosion'),
    ('weapons/explosion-(flashbang|grenade|rocket)', r'the explosion of a \1', 'explosion'),
    ('weapons/explosion', 'an explosion', 'explosion'),
    ('weapons/flamer-(big|small)', r'a \1 flamethrower', ''),
    ('weapons/grenade-bounce', 'a grenade bouncing', ''),
    ('weapons/grenade-launcher.*', 'a grenade launcher', ''),
    ('weapons/grenade-pin', 'the pin of a grenade being pulled', ''),
    ('weapons/melee-(swoosh|throw)', 'a weapon swung through the air', 'swoosh'),
    ('weapons/(laser|plasma|ptl)-.*', 'a laser weapon', 'laser'),
    (r'weapons/reload-(.*)', r'a \1 being reloaded', 'gun reload'),
    ('weapons/rocket-.*', 'a rocket being fired', ''),
    ('weapons/ugv-cannon-fire', 'a cannon being fired', 'gunshot'),
    ('weapons/ugv-lasercannon-fire', 'a laser cannon being fired', 'laser'),
    ('weapons/.*', 'a futuristic device', ''),
)


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Every sound of the container; nothing is left out."""
    del dropped
    package = packages.get(PACKAGES[0])
    if package is None:
        return
    licences = debian_copyright.parse(reading.read_text(package, _COPYRIGHT))
    for name in sorted(_archive(package).namelist()):
        if not (name.startswith(_FOLDER) and name.endswith(_SUFFIX)):
            continue
        title = name.removeprefix(_FOLDER).removesuffix(_SUFFIX)
        rule = rules.first(_RULES, title)
        stated = debian_copyright.find(licences, f'base/{name}')
        yield Clip(
            package='ufoai',
            member=f'{_MEMBER}#{name}',
            read=functools.partial(_read, package, name),
            kind='sound',
            group='ufoai/' + rules.series(title),
            title=title,
            licence=stated.licence,
            label=rule.label,
            author=stated.author,
            phrase=rule.phrase,
        )


@functools.lru_cache(maxsize=1)
def _archive(package: Package) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(package.read(_MEMBER)))
    except (zipfile.BadZipFile, ValueError) as error:
        raise config_lib.ConfigError(
            f'{package.name}: {_MEMBER} is not a zip container: {error}.'
        ) from error


def _read(package: Package, name: str) -> tuple[np.ndarray, int]:
    where = f'{package.name}: {_MEMBER}#{name}'
    try:
        with _archive(package).open(name) as file:
            content = file.read(_MAX_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise config_lib.ConfigError(f'{where} cannot be unpacked: {error}.') from error
    if len(content) > _MAX_BYTES:
        raise config_lib.ConfigError(f'{where} is larger than {_MAX_BYTES} bytes.')
    x, rate = decode(content, where)
    return to_pcm16(x), rate
