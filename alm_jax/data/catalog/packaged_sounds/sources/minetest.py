"""Minetest: ogg files of the game's mods, named after what is done to which material."""

import collections
import functools
import re
from collections.abc import Iterator, Mapping

from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import reading, rules

PACKAGES = ('minetest-data',)

_SOUND = re.compile(r'usr/share/games/minetest/games/.*/(?P<title>[\w.]+)\.ogg')

# file name without number -> noun phrase, label.
_RULES = (
    ('carts_cart_moving', 'a mine cart rolling on rails', ''),
    ('default_break_glass', 'glass breaking', 'glass'),
    ('default_chest_(open|close)', r'a wooden chest, \1', ''),
    ('default_cool_lava', 'lava hissing as it cools', 'steam'),
    ('default_dig_choppy', 'wood being chopped', 'chopping'),
    ('default_dig_cracky', 'stone being picked', ''),
    ('default_dig_crumbly', 'earth being dug', 'digging'),
    ('default_dig_metal', 'metal being struck', 'metal'),
    ('default_dig_(snappy|dig_immediate|oddly.*)', 'something breaking off', ''),
    ('default_(dirt|grass|gravel|ice|sand|snow)_footstep', r'footsteps on \1', 'footsteps'),
    ('default_(glass|metal|wood)_footstep', r'footsteps on \1', 'footsteps'),
    ('default_hard_footstep', 'footsteps on hard ground', 'footsteps'),
    ('default_water_footstep', 'footsteps in water', 'splash'),
    ('default_(dug|place_node)_metal', 'a piece of metal', 'metal'),
    ('default_dug_node', 'a block breaking off', ''),
    ('default_place_node.*', 'a block being placed', ''),
    ('default_furnace_active', 'a furnace burning', 'fire'),
    ('default_gravel_(dig|dug)', 'gravel being dug', 'digging'),
    ('default_ice_(dig|dug)', 'ice being broken', ''),
    ('default_item_smoke', 'an item going up in smoke', ''),
    ('default_tool_breaks', 'a tool breaking', ''),
    ('player_damage', 'a player being hurt', ''),
    ('doors_door_(open|close)', 'a wooden door', 'door'),
    ('doors_fencegate_(open|close)', 'a fence gate', 'door'),
    ('doors_glass_door_(open|close)', 'a glass door', 'door'),
    ('doors_steel_door_(open|close)', 'a steel door', 'door'),
    ('xpanes_steel_bar_door_(open|close)', 'a door of steel bars', 'door'),
    ('env_sounds_lava', 'lava rumbling', ''),
    ('env_sounds_water', 'flowing water', 'flowing water'),
    ('fire_extinguish_flame', 'a flame hissing as it goes out', 'steam'),
    ('fire_fire', 'a fire burning', 'fire'),
    ('fire_(large|small)', r'a \1 fire burning', 'fire'),
    ('fire_flint_and_steel', 'flint striking steel', ''),
    ('tnt_explode', 'dynamite exploding', 'explosion'),
    ('tnt_gunpowder_burning', 'gunpowder burning', 'fuse'),
    ('tnt_ignite', 'a fuse being lit', 'fuse'),
    ('soundstuff_mono', 'a test tone', ''),
)
# file name without number -> licence, author: the README.txt of each mod. 'BY' is 3.0 throughout.
_LICENCES = (
    ('default_break_glass', 'CC-BY-3.0', 'cmusounddesign, Tomlija, lsprice'),
    ('default_dig_metal', 'CC-BY-3.0', 'yadronoff'),
    ('default_dug_metal', 'CC0-1.0', 'qubodup'),
    ('default_metal_footstep', 'CC0-1.0', 'mypantsfelldown'),
    ('default_place_node_metal', 'CC0-1.0', 'Ogrebane'),
    ('default_tool_breaks', 'CC-BY-3.0', 'HerbertBoland'),
    ('default_water_footstep', 'CC-BY-3.0', 'AGFX'),
    ('default_dig_snappy', 'CC0-1.0', 'blukotek'),
    ('default_chest_.*', 'CC-BY-3.0', 'sofar, Percy Duke, kingsamas, bulbastre'),
    ('default_snow_footstep', 'CC0-1.0', 'Ryding'),
    ('default_item_smoke', 'CC0-1.0', 'Ferk'),
    ('player_damage', 'CC-BY-3.0', 'sonictechtonic'),
    ('default_dig_choppy', 'CC0-1.0', 'Sheyvan'),
    ('default_gravel_(dig|dug)', 'CC0-1.0', 'lolamadeus'),
    ('default_dig_cracky', 'CC-BY-3.0', 'Benboncan'),
    ('default_hard_footstep', 'CC-BY-3.0', 'Erdie'),
    ('default_sand_footstep', 'CC0-1.0', 'worthahep88'),
    ('default_ice_dig', 'CC-BY-3.0', 'dheming'),
    ('default_ice_footstep', 'CC-BY-3.0', 'InspectorJ'),
    ('default_ice_dug', 'CC-BY-3.0', 'Angel_Perez_Grandi'),
    ('default_furnace_active', 'CC0-1.0', 'iankath'),
    ('default_(dig_crumbly|dig_dig_immediate|dig_oddly.*)', 'CC-BY-SA-3.0', 'Mito551'),
    ('default_(dug_node|place_node|place_node_hard)', 'CC-BY-SA-3.0', 'Mito551'),
    ('default_(grass|gravel|glass|wood|dirt)_footstep', 'CC-BY-SA-3.0', 'Mito551'),
    ('env_sounds_water', 'CC0-1.0', 'Yuval'),
    ('env_sounds_lava', 'CC0-1.0', 'Halion'),
    ('fire_small', 'CC-BY-3.0', 'dobroide'),
    ('fire_(large|fire)', 'CC-BY-3.0', 'Dynamicell'),
    ('fire_flint_and_steel', 'CC-BY-3.0', 'Benboncan'),
    ('tnt_.*', 'CC0-1.0', 'TumeniNodes'),
    ('doors_door_.*', 'CC-BY-3.0', 'CGEffex, bennstir, BlockMen'),
    ('doors_fencegate_open', 'CC0-1.0', 'mhtaylor67'),
    ('doors_fencegate_close', 'CC-BY-3.0', 'BarkersPinhead, rivernile7'),
    ('doors_steel_door_.*', 'CC-BY-3.0', 'HazMatt'),
    ('doors_glass_door_.*', 'CC0-1.0', 'SkeetMasterFunk69'),
    ('xpanes_steel_bar_door_.*', 'CC-BY-SA-3.0', 'TumeniNodes'),
    ('.*', 'CC-BY-SA-3.0', 'celeron55, Perttu Ahola'),
)


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """Every ogg file of the games; nothing is left out."""
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
        _, licence, author = next(row for row in _LICENCES if re.fullmatch(row[0], name))
        yield Clip(
            package='minetest',
            member=member,
            read=functools.partial(reading.read_audio, package, member),
            kind='sound',
            group=f'minetest/{name}',
            title=match['title'],
            licence=licence,
            label=rule.label,
            author=author,
            phrase=rule.phrase,
        )
