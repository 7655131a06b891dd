"""The General MIDI sound set: instrument names, class labels and the middle of their range.

Source: General MIDI System Level 1 (MMA, 1991), tables 1 to 3; castanets are key 85 of GM2.
Programs 121 to 128 (fret noise, seashore, telephone, ...) are effects, not instruments: left out.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Instrument:
    """Attributes: number (program from 0, or percussion key), name, label, centre (MIDI key)."""

    number: int
    name: str
    label: str
    centre: int


# name | label ('' is the name in lower case) | key in the middle of the range ('' is 60, middle C)
_PROGRAMS = """
Acoustic Grand Piano|piano|
Bright Acoustic Piano|piano|
Electric Grand Piano|piano|
Honky-tonk Piano|piano|
Electric Piano 1|electric piano|
Electric Piano 2|electric piano|
Harpsichord||
Clavinet|clavinet|
Celesta||76
Glockenspiel||84
Music Box||79
Vibraphone||
Marimba||
Xylophone||79
Tubular Bells||67
Dulcimer||
Drawbar Organ|organ|
Percussive Organ|organ|
Rock Organ|organ|
Church Organ|organ|
Reed Organ|organ|
Accordion||64
Harmonica||69
Tango Accordion|accordion|64
Nylon-string Acoustic Guitar|guitar|55
Steel-string Acoustic Guitar|guitar|55
Jazz Electric Guitar|electric guitar|55
Clean Electric Guitar|electric guitar|55
Muted Electric Guitar|electric guitar|55
Overdriven Electric Guitar|electric guitar|55
Distorted Electric Guitar|electric guitar|55
Electric Guitar Harmonics|electric guitar|64
Acoustic Bass|double bass|40
Fingered Electric Bass|bass guitar|40
Picked Electric Bass|bass guitar|40
Fretless Bass|bass guitar|40
Slap Bass 1|bass guitar|40
Slap Bass 2|bass guitar|40
Synth Bass 1|synthesizer|40
Synth Bass 2|synthesizer|40
Violin||72
Viola||64
Cello||52
Contrabass|double bass|40
Tremolo Strings|string section|
Pizzicato Strings|string section|
Orchestral Harp|harp|
Timpani||48
String Ensemble 1|string section|
String Ensemble 2|string section|
Synth Strings 1|synthesizer|
Synth Strings 2|synthesizer|
Choir Aahs|choir|
Voice Oohs|choir|
Synth Voice|synthesizer|
Orchestra Hit|orchestra|
Trumpet||69
Trombone||53
Tuba||43
Muted Trumpet|trumpet|69
French Horn||55
Brass Section||
Synth Brass 1|synthesizer|
Synth Brass 2|synthesizer|
Soprano Saxophone|saxophone|70
Alto Saxophone|saxophone|64
Tenor Saxophone|saxophone|58
Baritone Saxophone|saxophone|52
Oboe||72
English Horn||66
Bassoon||50
Clarinet||66
Piccolo||84
Flute||76
Recorder||76
Pan Flute||74
Blown Bottle||69
Shakuhachi||69
Whistle|whistle|60
Ocarina||76
Square Lead|synthesizer|
Sawtooth Lead|synthesizer|
Calliope Lead|synthesizer|
Chiff Lead|synthesizer|
Charang Lead|synthesizer|
Voice Lead|synthesizer|
Fifths Lead|synthesizer|
Bass and Lead|synthesizer|
New Age Pad|synthesizer|
Warm Pad|synthesizer|
Polysynth Pad|synthesizer|
Choir Pad|synthesizer|
Bowed Pad|synthesizer|
Metallic Pad|synthesizer|
Halo Pad|synthesizer|
Sweep Pad|synthesizer|
Rain Effect|synthesizer|
Soundtrack Effect|synthesizer|
Crystal Effect|synthesizer|
Atmosphere Effect|synthesizer|
Brightness Effect|synthesizer|
Goblins Effect|synthesizer|
Echoes Effect|synthesizer|
Sci-fi Effect|synthesizer|
Sitar||
Banjo||64
Shamisen||64
Koto||
Kalimba||67
Bagpipes||64
Fiddle|violin|72
Shanai||69
Tinkle Bell||72
Agogo||67
Steel Drums|steel drum|64
Woodblock|wood block|64
Taiko Drum|drum|50
Melodic Tom|tom-tom|50
Synth Drum|synthesizer|50
Reverse Cymbal|cymbal|
"""
# From key 35 on.
_PERCUSSION = """
Acoustic Bass Drum|bass drum
Electric Bass Drum|bass drum
Side Stick|snare drum
Acoustic Snare|snare drum
Hand Clap|
Electric Snare|snare drum
Low Floor Tom|tom-tom
Closed Hi-hat|hi-hat
High Floor Tom|tom-tom
Pedal Hi-hat|hi-hat
Low Tom|tom-tom
Open Hi-hat|hi-hat
Low-mid Tom|tom-tom
High-mid Tom|tom-tom
Crash Cymbal|cymbal
High Tom|tom-tom
Ride Cymbal|cymbal
Chinese Cymbal|cymbal
Ride Bell|cymbal
Tambourine|
Splash Cymbal|cymbal
Cowbell|
Second Crash Cymbal|cymbal
Vibraslap|
Second Ride Cymbal|cymbal
High Bongo|bongo
Low Bongo|bongo
Muted High Conga|conga
Open High Conga|conga
Low Conga|conga
High Timbale|timbale
Low Timbale|timbale
High Agogo|agogo
Low Agogo|agogo
Cabasa|
Maracas|
Short Whistle|whistle
Long Whistle|whistle
Short Guiro|guiro
Long Guiro|guiro
Claves|
High Wood Block|wood block
Low Wood Block|wood block
Muted Cuica|cuica
Open Cuica|cuica
Muted Triangle|triangle
Open Triangle|triangle
"""
_CASTANETS = Instrument(85, 'Castanets', 'castanets', 85)


def _melodic() -> tuple[Instrument, ...]:
    rows = (line.split('|') for line in _PROGRAMS.strip().split('\n'))
    return tuple(
        Instrument(number, name, label or name.lower(), int(centre or 60))
        for number, (name, label, centre) in enumerate(rows)
    )


def _percussion() -> tuple[Instrument, ...]:
    rows = (line.split('|') for line in _PERCUSSION.strip().split('\n'))
    keys = tuple(
        Instrument(key, name, label or name.lower(), key)
        for key, (name, label) in enumerate(rows, start=35)
    )
    return (*keys, _CASTANETS)


MELODIC = _melodic()
PERCUSSION = _percussion()
