"""The words of sound captions that hard negatives exchange: nouns by class, verbs, antonyms.

Chosen so that an exchange makes a true caption false: words that may be said of one sound ('horn'
and 'car', 'loud' and 'noisy') are in one class, or in classes that ``KIN`` keeps apart.
"""

from alm_jax.data import english


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _nouns(text: str) -> tuple[str, ...]:
    return tuple(text.split(','))


# class -> nouns, singular
NOUNS: dict[str, tuple[str, ...]] = {
    'animal': _nouns(
        'bird,cat,chicken,cow,cricket,crow,dog,donkey,duck,elephant,frog,goat,goose,horse,insect,'
        'kitten,lion,monkey,owl,pig,pigeon,puppy,rooster,seagull,sheep,snake,turkey,wolf'
    ),
    'person': _nouns('baby,boy,child,girl,infant,man,person,toddler,woman'),
    'vehicle': _nouns(
        'airplane,ambulance,bicycle,boat,bus,car,fire truck,helicopter,jet,lorry,motorboat,'
        'motorcycle,police car,race car,scooter,ship,subway,taxi,tractor,train,tram,truck'
    ),
    'instrument': _nouns(
        'accordion,banjo,bass guitar,cello,clarinet,didgeridoo,double bass,flute,guitar,harmonica,'
        'harp,harpsichord,mandolin,oboe,piano,saxophone,sitar,trombone,trumpet,tuba,ukulele,'
        'violin,xylophone'
    ),
    'machine': _nouns(
        'blender,camera,chainsaw,drill,dishwasher,fan,hair dryer,hammer,lawn mower,microwave,'
        'printer,saw,sewing machine,toaster,typewriter,vacuum cleaner,washing machine'
    ),
    'signal': _nouns('alarm,bell,buzzer,doorbell,horn,siren,telephone,whistle'),
    'fixture': _nouns('cupboard,door,drawer,faucet,gate,shower,tap,toilet,window'),
    'weather': ('hail', 'rain', 'thunder', 'wind'),
    'voice': ('applause', 'laughter', 'singing', 'speech'),
    'music': ('music',),
}
# What they typically do, so that a noun that takes another's place does not do the other's thing:
# by noun, else by class.
_DOINGS = (
    'bird chirp,cat meow,chicken cluck,cow moo,cricket chirp,crow caw,dog bark,donkey bray,'
    'duck quack,elephant trumpet,frog croak,goat bleat,goose honk,horse neigh,insect buzz,'
    'kitten meow,lion roar,monkey screech,owl hoot,pig grunt,pigeon coo,puppy yap,rooster crow,'
    'seagull squawk,sheep bleat,snake hiss,turkey gobble,wolf howl,baby cry,infant cry,hail fall,'
    'rain fall,thunder rumble,wind blow,bell ring,buzzer buzz,doorbell ring,horn honk,siren wail,'
    'telephone ring,whistle blow,person speak,vehicle pass,instrument play,machine run,'
    'signal sound,fixture rattle,voice sound,music play'
)
DOING = dict(doing.split(' ', 1) for doing in _DOINGS.split(','))
# Of these, the ones that have neither an article nor a plural.
MASS = frozenset(noun for name in ('weather', 'voice', 'music') for noun in NOUNS[name])
# Names of a whole group, that others of their class belong to.
GENERIC = _words('person child bird insect baby infant toddler alarm')
# Pairs of classes whose nouns may name one and the same sound.
KIN = frozenset(
    frozenset(pair.split('-'))
    for pair in (
        'vehicle-signal',
        'vehicle-machine',
        'machine-signal',
        'machine-fixture',
        'fixture-signal',
        'instrument-signal',
        'voice-music',
    )
)

# Words for the same thing, as far as a caption can be true by either.
_SYNONYMS = {
    'speak': 'talk,say,chat,converse,discuss,chatter,narrate',
    'yell': 'shout,scream,holler,cry out',
    'laugh': 'giggle,chuckle,cackle',
    'cry': 'weep,sob,wail',
    'bark': 'yap,yip,woof',
    'ring': 'chime,ding,toll',
    'honk': 'beep,toot,blare',
    'run': 'idle,hum',
    'play': 'strum,perform',
    'blow': 'whoosh,gust',
    'chirp': 'tweet,sing',
    'applaud': 'clap,cheer',
    'knock': 'tap,bang',
}
CANONICAL = {word: one for one, words in _SYNONYMS.items() for word in words.split(',')}
VERBS = _words(
    'accelerate applaud approach bang bark beat beep blare bleat blow boil bounce bray break '
    'buzz cackle call caw chant chat chatter cheer chime chirp chop chuckle clang clank clap '
    'clatter click clink close cluck converse coo cough crack crackle crash creak croak crow '
    'cry ding discuss drip drive drone drum echo fall fire flow flush fly fry giggle gobble '
    'grind groan growl grunt gurgle hammer hiss holler honk hoot howl hum idle jingle knock '
    'land laugh meow moan moo narrate neigh open pant pass perform play pop pour purr quack '
    'rattle read rev ring roar rumble run rush rustle say scrape scratch scream screech shatter '
    'shout sing sizzle slam slide snap sneeze sniff snore sob sound speak splash spray squawk '
    'squeak squeal start stop strum swish swoosh talk tap thud thump tick toot trickle trumpet '
    'tweet type vibrate wail walk weep whimper whine whinny whir whisper whistle whoosh woof '
    'work yap yell'
)
# Words that may follow a noun which is the head of its phrase, beside verbs.
FUNCTION_WORDS = _words(
    'a an the and or but while as with without then before after in on at by from of to into '
    'over under near through across behind around along past off inside outside nearby is are '
    'was were can be being has have that which who repeatedly loudly quietly softly briefly '
    'continuously intermittently slowly quickly rapidly again followed preceded during for '
    'several once twice until when'
)
DETERMINERS = _words(
    'a an the one two three four five some several many multiple another his her their'
)
# Adjectives after which a noun may be exchanged; 'electric guitar' or 'toy car' may not.
ADJECTIVES = _words(
    'loud quiet soft faint large small big little young old distant nearby adult male female '
    'single slow fast noisy angry happy sad heavy light high low medium crying laughing'
)
NEVER_SUBJECTS = FUNCTION_WORDS | DETERMINERS | ADJECTIVES  # of a verb right after them

# Antonyms in both directions; ``ONE_WAY`` only from left to right, as the right side is the plain
# opposite of several words.
ANTONYMS = (
    'loud quiet,louder quieter,loudly quietly,fast slow,faster slower,quickly slowly,'
    'male female,man woman,men women,boy girl,boys girls,large small,larger smaller,old young,'
    'heavy light,heavily lightly,high low,higher lower,high-pitched low-pitched,distant nearby,'
    'indoors outdoors,inside outside,rising falling,ascending descending,increasing decreasing,'
    'increases decreases,approaching receding,opens closes,opening closing,'
    'continuous intermittent,continuously intermittently,happy sad,happily sadly,angry calm,'
    'major minor,electric acoustic'
)
ONE_WAY = (
    'soft loud,softly loudly,faint loud,faintly loudly,rapid slow,rapidly slowly,big small,'
    'calmly angrily,angrily calmly,constant intermittent,constantly intermittently'
)
# Words that are attributes only before (a part of) these: 'a light switch' is not the opposite of
# 'a heavy switch'.
_PITCHED = 'pitch,pitched,tone,tones,note,notes,frequency,hum,rumble,voice,voices,volume,tempo'
_WEATHER = 'rain,wind,traffic,footsteps,breathing,rainfall,hail,snow,object,objects'
_MOVING = 'arpeggio,pitch,tone,tones,scale,sweep,note,notes,melody,siren'
_PEOPLE = 'man,woman,men,women,person,people,boy,girl,male,female,lady'
ONLY_BEFORE = {
    'high': _PITCHED,
    'low': _PITCHED,
    'higher': _PITCHED,
    'lower': _PITCHED,
    'heavy': _WEATHER,
    'light': _WEATHER,
    'rising': _MOVING,
    'falling': _MOVING,
    'old': _PEOPLE,
    'young': _PEOPLE,
    'major': 'key,chord,chords,scale',
    'minor': 'key,chord,chords,scale',
    'electric': 'guitar,guitars,bass,piano',
    'acoustic': 'guitar,guitars,bass,piano',
    'soft': 'music,sound,voice,voices,noise,hum,speech,knock,thud,rain,tone,note,piano,singing,'
    'low,high,mid-range',
}
NOT_AFTER = _words('not medium moderately less no too as how')
GENDER = _words('male female man woman men women boy girl boys girls')
GENDERED_PRONOUNS = _words('he she his her hers him himself herself')
# Nouns without an article at the start of a phrase, beside plurals and MASS.
BARE = _words(
    'birdsong cheering clapping gunfire machinery metal noise static traffic typing water '
    'chatter crickets wood glass fire'
)
PRONOUNS = _words('he she it they his her hers their its him them same another')
NUMBERS = ('two', 'three', 'four', 'five', 'six')


def _opposites() -> dict[str, str]:
    table = {}
    for pair in ANTONYMS.split(','):
        left, right = pair.split()
        table |= {left: right, right: left}
    return dict(pair.split() for pair in ONE_WAY.split(',')) | table


OPPOSITES = _opposites()
_OTHER_PLURALS = (
    'adults animals bangs bees beeps bells bubbles chirps clicks coins crowds dishes drums engines '
    'explosions females fireworks flies footsteps gunshots instruments keys kids knocks ladies '
    'leaves males notes people sounds tires tones vehicles voices waterfalls waves wheels'
)
_OTHER_COUNTABLES = (
    'adult beep choir clap click clock conditioner conversation crowd cymbal drum engine explosion '
    'firework gun gunshot hen jackhammer keyboard knock lady male female melody motor mouse note '
    'orchestra scream sound synthesizer thunderstorm tone vehicle voice waterfall wave'
)
_SINGULARS = [noun for nouns in NOUNS.values() for noun in nouns if noun not in MASS]
COUNTABLE = frozenset(_SINGULARS) | _words(_OTHER_COUNTABLES)
PLURALS = frozenset(map(english.plural, _SINGULARS)) | _words(_OTHER_PLURALS)
