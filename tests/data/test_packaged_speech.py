"""Spoken prompts, descriptions, dialogues and rendered instruments, read from the real packages."""

import collections
import contextlib
import pickle
import string
import sys
import types

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.data.catalog.packaged_sounds import renderer
from alm_jax.data.catalog.packaged_sounds.fetch import open_package
from alm_jax.data.catalog.packaged_sounds.sources import (
    asterisk,
    fillets,
    general_midi,
    grouping,
    klettres,
    reading,
    soundfont,
    tuxpaint,
)

few = hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
hostile = st.text(st.characters(codec='utf-8'), max_size=200)
words = st.text(string.ascii_letters + 'éжക ', min_size=1, max_size=20).filter(str.strip)

# The 26 instruments recorded for gcompris, which test what is learnt from the soundfonts.
# fmt: off
RECORDED = {
    'accordion', 'banjo', 'bongo', 'castanets', 'cello', 'clarinet', 'cymbal', 'drum kit',
    'electric guitar', 'flute', 'french horn', 'guitar', 'harmonica', 'harp', 'maracas', 'organ',
    'piano', 'saxophone', 'snare drum', 'tambourine', 'timpani', 'triangle', 'trombone', 'trumpet',
    'tuba', 'violin',
}
# fmt: on


def packages(source, *names):
    return {name: open_package(name) for name in names or source.PACKAGES}


def listed(source, *names):
    """(clips, what was left out)."""
    dropped = collections.Counter()
    return list(source.clips(packages(source, *names), dropped)), dropped


@pytest.fixture(scope='module')
def english():
    return listed(asterisk, 'asterisk-core-sounds-en', 'asterisk-core-sounds-en-g722')


@pytest.fixture(scope='module')
def instruments():
    clips, dropped = listed(soundfont, 'timgm6mb-soundfont')
    assert not dropped
    return {clip.member.partition('#')[2]: (clip, clip.read()) for clip in clips}


# Asterisk


def test_every_english_prompt_with_words_is_there(english):
    clips, dropped = english
    assert len(clips) == 551
    assert dropped == {'asterisk: a noise or a silence': 17}
    assert len({clip.member for clip in clips}) == 551
    by_key = {clip.member.split('Allison/')[1]: clip for clip in clips}
    assert by_key['activated.g722'].transcript == 'Activated.'
    assert by_key['letters/at.g722'].transcript == 'at'  # listed as 'at [@]'
    assert 'silence/1.g722' not in by_key
    assert 'tt-monkeys.g722' not in by_key
    assert {clip.licence for clip in clips} == {'CC-BY-SA-3.0'}
    assert {clip.translation for clip in clips} == {''}


def test_g722_decodes_to_clean_speech_as_long_as_its_text(english):
    clips, _ = english
    seconds = []
    for clip in clips:
        pcm, rate = clip.read()
        assert (pcm.dtype, pcm.ndim, rate) == (np.int16, 1, 16_000)
        assert 1000 < np.abs(pcm.astype(np.int32)).max() < 32_000, clip.member
        seconds.append(len(pcm) / rate)
    assert sum(seconds) == pytest.approx(1455.6, abs=0.1)
    letters = [len(clip.transcript) for clip in clips]
    assert np.corrcoef(letters, seconds)[0, 1] > 0.95  # text and audio belong together


def test_clips_travel_to_another_process(english):
    clip = english[0][0]
    pcm, rate = pickle.loads(pickle.dumps(clip)).read()
    np.testing.assert_array_equal(pcm, clip.read()[0])
    assert rate == 16_000


def test_equal_prompts_are_in_one_group(english):
    group_of = {}
    for clip in english[0]:
        said = ' '.join(clip.transcript.lower().rstrip('.').split())
        assert group_of.setdefault(said, clip.group) == clip.group
    assert len(set(group_of.values())) > 450


@few
@hypothesis.given(hostile)
def test_any_text_is_read_as_transcripts(text):
    for key, said in asterisk.parse_transcripts(text).items():
        assert ':' not in key
        assert (key, said) == (key.strip(), said.strip())
        assert len(asterisk.spoken_words(said)) <= len(said)


@few
@hypothesis.given(st.dictionaries(words.map(str.strip), words.map(str.strip), max_size=5))
def test_written_transcripts_are_read_back(prompts):
    text = '; comment: not a prompt\n' + ''.join(f'{k}: {v}\n' for k, v in prompts.items())
    assert asterisk.parse_transcripts(text) == prompts


@pytest.mark.parametrize(
    ('listed_as', 'said'),
    [
        ('[ascending tones]', ''),
        ('(1 second of silence)', ''),
        ('<beep ascending>', ''),
        ('dollar [$]', 'dollar'),
        ('IAX (note: does not say "2")', 'IAX'),
        ('menu poli (jamais), appuyez', 'menu poli (jamais), appuyez'),
    ],
)
def test_remarks_are_not_said(listed_as, said):
    assert asterisk.spoken_words(listed_as) == said


@few
@hypothesis.given(st.binary(min_size=1, max_size=2000))
def test_any_bytes_are_g722(data):
    assert asterisk.decode_g722(data, 'x').shape == (2 * len(data),)


def test_an_empty_prompt_is_named():
    with pytest.raises(ConfigError, match=r'ru: is\.g722 has 0 bytes'):
        asterisk.decode_g722(b'', 'ru: is.g722')


# Instruments


def test_every_instrument_plays(instruments):
    clips = [clip for clip, _ in instruments.values()]
    assert len(clips) == 483
    programs = {member.split('/')[0] for member in instruments}
    assert programs == {f'0:{program}' for program in range(120)} | {'128:0'}
    labels = {clip.label for clip in clips}
    assert len(RECORDED) == 26
    assert labels >= RECORDED
    assert {clip.group for clip in clips} == {f'timgm6mb/{label}' for label in labels}
    clip, _ = instruments['0:4/60/velocity 120']
    assert clip.title == 'Electric Piano 1, middle C, loud'
    assert clip.label == 'electric piano'


def test_rendered_notes_are_clean(instruments):
    quiet = []
    for member, (clip, (pcm, rate)) in instruments.items():
        peak = np.abs(pcm.astype(np.int32)).max()
        assert (pcm.dtype, rate) == (np.int16, 32_000)
        assert peak < 32_000, member  # never clipped
        assert 0.03 < len(pcm) / rate < 3.0, clip.title
        assert abs(pcm[-1]) < 40, clip.title  # not cut off in full swing
        if peak < 200:
            quiet.append(clip.title)
    assert quiet == []


def test_pitch_and_loudness_are_as_the_title_says():
    synth, font = _synth()

    def note(key, velocity, program=79):  # an ocarina is nearly a sine
        return soundfont.render(synth, font, soundfont.Score(0, program, ((key,),), velocity, 1.0))

    for key, hertz in ((69, 440.0), (60, 261.6), (84, 1046.5)):
        x = note(key, 100)[6400:25_600]
        peak = np.argmax(np.abs(np.fft.rfft(x * np.hanning(len(x))))) * 32_000 / len(x)
        assert peak == pytest.approx(hertz, rel=0.02)
    loudness = [np.square(note(60, velocity, program=0)).mean() for velocity in (50, 85, 120)]
    assert 1.5 * loudness[0] < loudness[1] < loudness[2] / 1.5


def test_rendering_does_not_depend_on_what_was_played_before(instruments):
    members = sorted(instruments)[::-11]
    for member in members:
        clip, (pcm, _) = instruments[member]
        np.testing.assert_array_equal(clip.read()[0], pcm)
    soundfont._synthesiser.cache_clear()
    clip, (pcm, _) = instruments[members[0]]
    np.testing.assert_array_equal(clip.read()[0], pcm)


def _synth():
    package = open_package('timgm6mb-soundfont')
    member = soundfont._FONTS['timgm6mb-soundfont'].member
    return soundfont._synthesiser(soundfont._SoundFont(package.path, member, package))


def test_general_midi_is_whole():
    assert [i.number for i in general_midi.MELODIC] == list(range(120))
    assert [i.number for i in general_midi.PERCUSSION] == [*range(35, 82), 85]
    assert {i.name: i.label for i in general_midi.MELODIC}['Fiddle'] == 'violin'


def test_without_a_synthesiser_the_build_goes_on_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv('PIP_NO_INDEX', '1')  # as good as no network
    monkeypatch.delitem(sys.modules, 'tinysoundfont', raising=False)
    monkeypatch.setattr(sys, 'path', [p for p in sys.path if 'tinysoundfont' not in p])
    font = types.SimpleNamespace(path=tmp_path / 'downloads' / 'timgm6mb-soundfont.deb')
    with pytest.raises(renderer.RendererUnavailable, match='pip install --no-deps tinysoundfont'):
        renderer.load(font.path.parent)
    dropped = collections.Counter()
    assert list(soundfont.clips({'timgm6mb-soundfont': font}, dropped)) == []
    assert dropped == {'timgm6mb-soundfont: no synthesiser on this machine': 483}
    assert 'LEFT OUT' in caplog.text
    assert list((tmp_path / 'unpacked').iterdir()) == []  # nothing half done


# Texts of the larger packages


@few
@hypothesis.given(hostile)
def test_any_text_is_read_as_a_stamp(text):
    for language, said in tuxpaint.parse_texts(text).items():
        assert language
        assert said == said.strip() != ''


@few
@hypothesis.given(words.map(str.strip), st.dictionaries(st.sampled_from(['fr', 'pt_BR']), words))
def test_written_stamps_are_read_back(english, translations):
    lines = [english, *(f'{code}.utf8={said}' for code, said in translations.items()), '']
    expected = {'en': english, **{code: said.strip() for code, said in translations.items()}}
    assert tuxpaint.parse_texts('\n'.join(lines)) == expected


@few
@hypothesis.given(hostile)
def test_any_text_is_read_as_dialogues(text):
    fillets.parse_dialogues(text)
    fillets.parse_dialogues(f'dialogId("a", "f", "{text}')


@few
@hypothesis.given(st.dictionaries(words, st.tuples(hostile, hostile), max_size=4))
def test_written_dialogues_are_read_back(dialogues):
    def quoted(text):
        return '"' + text.replace('\\', '\\\\').replace('"', '\\"') + '"'

    def plain(text):
        return ' '.join(text.split('\n')).strip()

    lines = ['-- dialogId("x", "f", "commented") dialogStr("out")']
    for name, (english, own) in dialogues.items():
        lines.append(f'dialogId({quoted(name)}, "font_big", {quoted(plain(english))})')
        lines.append(f'dialogStr({quoted(plain(own))})\n')
    expected = {
        name.strip(): (plain(english), plain(own)) for name, (english, own) in dialogues.items()
    }
    hypothesis.assume(len(expected) == len(dialogues))
    assert fillets.parse_dialogues('\n'.join(lines)) == expected


def test_lua_escapes():
    lua = r'dialogId("a", "f", "He said \"no\".\nTwice.") dialogStr("\/etc")'
    assert fillets.parse_dialogues(lua) == {'a': ('He said "no". Twice.', '/etc')}


@few
@hypothesis.given(st.binary(max_size=100))
def test_any_bytes_are_xml_or_a_config_error(data):
    with contextlib.suppress(ConfigError):
        klettres.parse_sounds(data, 'en/sounds.xml')
    with pytest.raises(ConfigError, match=r'en/sounds\.xml'):
        klettres.parse_sounds(data + b'<', 'en/sounds.xml')


def test_sounds_are_read_and_entities_refused():
    xml = b'<k><alphabet><sound name=" A " file="en/a.ogg"/></alphabet><syllables/></k>'
    assert klettres.parse_sounds(xml, 'x') == [('letter', 'A', 'en/a.ogg')]
    with pytest.raises(ConfigError, match='document type'):
        klettres.parse_sounds(b'<!DOCTYPE k [<!ENTITY a "b">]>' + xml, 'x')


def test_texts_are_bounded():
    assert reading.as_text('\ufeffA rooster.'.encode(), 'x') == 'A rooster.'
    with pytest.raises(ConfigError, match=r'pkg: a\.txt is larger'):
        reading.as_text(b' ' * (reading.MAX_TEXT_BYTES + 1), 'pkg: a.txt')
    with pytest.raises(ConfigError, match=r'pkg: a\.txt is not UTF-8'):
        reading.as_text(b'\xff', 'pkg: a.txt')


@few
@hypothesis.given(st.dictionaries(st.sampled_from('abcdef'), st.lists(st.sampled_from('12345'))))
def test_groups_are_the_connected_components(texts):
    groups = grouping.text_groups(texts)
    for first in texts:
        reached, grown = {first}, True
        while grown:  # brute force
            heard = {text for key in reached for text in texts[key]}
            grown = {key for key in texts if heard & set(texts[key])} - reached
            reached |= grown
        assert {key for key in texts if groups[key] == groups[first]} == reached


def test_groups_do_not_mind_case_and_punctuation_but_vowel_signs():
    groups = grouping.text_groups({'a': ['The cow.'], 'b': ['the  COW!'], 'c': ['ഝം'], 'd': ['ഝ']})
    assert groups == {'a': 'a', 'b': 'a', 'c': 'c', 'd': 'd'}


# The larger packages, counted on 24 November 2026.

COUNTS = {
    asterisk: {'en': 551, 'es': 477, 'fr': 509, 'ru': 554},
    tuxpaint: {
        **{'be': 632, 'bg': 920, 'ca': 775, 'da': 313, 'de': 10, 'el': 610, 'en': 75},
        **{'en-GB': 10, 'es': 896, 'fr': 933, 'it': 9, 'ja': 10, 'ko': 10, 'lt': 9, 'ml': 6},
        **{'nb': 10, 'nl': 71, 'nn': 10, 'pt': 10, 'pt-BR': 13, 'ro': 924, 'ru': 928, 'sl': 9},
        **{'sv': 10, 'zh-TW': 10},
    },
    fillets: {'cs': 1804, 'nl': 1615},
    klettres: {
        **{'ar': 28, 'cs': 50, 'da': 57, 'de': 63, 'en': 45, 'en-GB': 49, 'es': 144, 'fr': 54},
        **{'he': 51, 'hu': 82, 'it': 100, 'lt': 101, 'ml': 518, 'nb': 29, 'nds': 78, 'nl': 48},
        **{'pt-BR': 102, 'ru': 94, 'tn': 42, 'uk': 94},
    },
}


@pytest.mark.slow_local
@pytest.mark.parametrize('source', COUNTS, ids=lambda source: source.__name__.split('.')[-1])
def test_clips_a_language(source):
    clips, _ = listed(source)
    assert collections.Counter(clip.language for clip in clips) == COUNTS[source]
    assert len({clip.member for clip in clips}) == len(clips)
    assert all(clip.transcript and clip.group and clip.licence for clip in clips)
    unreadable = []
    for clip in clips[::10]:
        try:
            pcm, rate = clip.read()
        except ConfigError as error:
            unreadable.append(str(error))
            continue
        assert pcm.dtype == np.int16
        assert 0.1 < len(pcm) / rate < 120, clip.member
    assert unreadable == []


@pytest.mark.slow_local
def test_prompts_keep_their_english_in_every_language():
    clips, _ = listed(asterisk)
    translated = {
        clip.language: clip.translation
        for clip in clips
        if clip.member.endswith('/agent-loginok.g722')
    }
    assert translated == dict.fromkeys(('es', 'fr', 'ru'), 'Agent logged in.') | {'en': ''}


@pytest.mark.slow_local
def test_the_larger_font_plays_the_same_scores(instruments):
    clips, _ = listed(soundfont, 'fluid-soundfont-gm')
    assert {clip.member.partition('#')[2] for clip in clips} == set(instruments)
    peaks = [np.abs(clip.read()[0].astype(np.int32)).max() for clip in clips]
    assert min(peaks) > 60
    assert max(peaks) < 32_000
