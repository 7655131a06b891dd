"""The page of a dataset: what it counts, what it suspects, and that it stands alone."""

import base64
import csv
import html.parser
import io
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import soundfile
from matplotlib import image

from alm_jax.data import index, record, sources
from alm_jax.data.inspection import cards, facts, listening, page

_ALONE = {'meta', 'link', 'img', 'br', 'hr', 'input'}


class _Reading(html.parser.HTMLParser):
    """Tags must close in order; sources are collected."""

    def __init__(self, content):
        super().__init__()
        self.open, self.sources, self.text = [], [], ''
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.sources += [attrs[name] for name in ('src', 'href') if name in attrs]
        if tag not in _ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + ' '


@pytest.fixture(scope='module')
def planted(recordings, tmp_path_factory):
    """A folder of 17 real recordings and eight records that are not as they should be."""
    folder = tmp_path_factory.mktemp('planted')
    pcm, rate = soundfile.read(recordings / 'fire_large.ogg', dtype='int16')
    rows = []
    with (recordings / 'captions.csv').open() as file:
        for row in csv.DictReader(file):
            (folder / row['file']).write_bytes((recordings / row['file']).read_bytes())
            rows.append([row['file'], row['caption_1'], row['label']])
    bad = {
        'silent.wav': (np.zeros(rate, np.int16), rate),
        'clipped.wav': (np.clip(pcm.astype(np.int64) * 40, -32768, 32767).astype(np.int16), rate),
        'quiet.wav': ((pcm[: rate // 2] * 0.002).astype(np.int16), rate),
        'short.wav': (pcm[:400], rate),
        'copy.flac': ((pcm * 0.5).astype(np.int16), rate),
        'cut_off.wav': (pcm, rate),
        'long_caption.wav': (pcm[rate // 3 : rate], rate),
    }
    for name, (samples, its_rate) in bad.items():
        soundfile.write(folder / name, samples, its_rate)
        rows.append([name, f'A <b>{name}</b> & nothing else.', 'bad'])
    rows[-1][1] = 'very ' * 300 + 'long'
    with (folder / 'captions.csv').open('w', newline='') as file:
        csv.writer(file).writerows([['file', 'caption', 'label'], *rows])
    name = f'folder:{folder}?captions=captions.csv'
    source = sources.open_source(name, tmp_path_factory.mktemp('data'))
    whole = (folder / 'cut_off.wav').read_bytes()
    (folder / 'cut_off.wav').write_bytes(whole[: len(whole) // 2])
    return source


@pytest.fixture(scope='module')
def written(planted, tmp_path_factory):
    out = tmp_path_factory.mktemp('pages') / 'page.html'
    page.write([planted], out, title='planted', examples=24, workers=0)
    return out.read_text()


def test_the_page_is_whole_and_stands_alone(written):
    read = _Reading(written)
    assert read.sources
    assert all(re.match(r'#|data:(image/png|audio/mpeg);base64,', where) for where in read.sources)
    png = next(w for w in read.sources if w.startswith('data:image')).partition(',')[2]
    assert image.imread(io.BytesIO(base64.b64decode(png))).ndim == 3
    heard = next(w for w in read.sources if w.startswith('data:audio')).partition(',')[2]
    assert soundfile.info(io.BytesIO(base64.b64decode(heard))).format == 'MP3'
    assert len(written) < 5_000_000
    assert 'Every record was read and listened to.' in read.text


def test_counts_are_those_of_the_records(planted, written):
    text = ' '.join(_Reading(written).text.split())
    hours = planted.columns['duration'].sum() / 3600
    assert f'24 records {hours:.2f} hours' in text
    assert 'breaking glass' in text
    assert 'A <b>silent.wav</b> & nothing else.' in text  # escaped, not made bold


def test_a_sample_is_said_to_be_one(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(listening, 'SAMPLE', 4)
    page.write([planted], tmp_path / 'page.html', title='planted', examples=2, workers=0)
    text = _Reading((tmp_path / 'page.html').read_text()).text
    assert 'of all 24 records; 4 drawn at random were read and listened to' in text


def test_every_planted_fault_is_suspected(planted):
    chosen = listening.choose([planted], 100, 0)
    assert sorted(chosen) == [(0, i) for i in range(24)]
    assert chosen != sorted(chosen)
    known = facts.gather([planted])
    found = {**known.suspicions}
    found |= listening.suspicions(listening.listen([planted], chosen, workers=0), workers=0)
    ids = planted.columns['id'].tolist()
    suspected = {
        reason: {ids[number] for _, number in suspicion.rows}
        for reason, suspicion in found.items()
        if suspicion.count
    }
    assert suspected['silent throughout'] == {'silent.wav'}
    assert 'clipped.wav' in next(v for k, v in suspected.items() if k.startswith('clipped'))
    assert suspected['peak below -40 dB'] == {'quiet.wav'}
    assert suspected['shorter than 0.1 s'] == {'short.wav'}
    assert {'copy.flac', 'fire_large.ogg'} <= suspected['sounds as another record of the sample']
    assert suspected['cannot be decoded: truncated'] == {'cut_off.wav'}
    assert suspected['caption of more than 1000 characters'] == {'long_caption.wav'}
    assert found['neither caption nor question'].count == 0


def test_a_rate_that_few_have_is_suspected(packaged_tiny):
    source = sources.open_source('packaged_sounds/tiny:train', packaged_tiny)
    rates = source.columns['rate']
    usual = np.flatnonzero(rates == 32000)[:40].tolist()
    other = int(np.flatnonzero(rates != 32000)[0])
    heard = listening.listen([source], [(0, i) for i in [*usual, other]], workers=0)
    found = listening.suspicions(heard, workers=0)
    assert found['not at 32000 Hz, as nearly all others are'].rows == [(0, other)]


def test_a_file_that_is_not_as_its_index_says_is_suspected(planted):
    table = planted.index.table
    for name, reason in (('rate', 'the rate of the file'), ('num_samples', 'the length of the')):
        other = pc.add(table.column(name), 1).cast(table.schema.field(name).type)

        class Reader:
            index = index.Index(table.set_column(table.schema.get_field_index(name), name, other))
            read = planted.read

            def __len__(self):
                return len(planted)

        heard = listening.listen([sources.Source('other', Reader())], [(0, 0)], workers=0)
        assert heard[0].wrong[0].startswith(reason)


def test_suspicious_rows_are_numbered_over_stretches(planted):
    table = planted.index.table
    short = facts.gather([planted]).suspicions['shorter than 0.1 s'].rows

    class Reader:
        index = index.Index(pa.concat_tables([table, table]).unify_dictionaries())

        def __len__(self):
            return 2 * len(table)

    twice = sources.Source('twice', Reader())
    rows = facts.gather([twice, planted]).suspicions['shorter than 0.1 s'].rows
    second = [(0, number + len(table)) for _, number in short]
    assert rows == [*short, *second, *((1, number) for _, number in short)]


def test_times_and_turns_are_shown(planted):
    class Reader:
        index = planted.index

        def __len__(self):
            return len(planted)

        def read(self, row):
            return {
                **planted.read(row),
                'times': [{'onset': 0.5, 'offset': 0.9, 'text': 'a crack'}],
                'turns': [{'question': 'Is it <hot>?', 'answer': 'Yes.', 'dialogue': 0}],
                'transcript': 'crack',
                'language': 'en',
            }

    number = planted.columns['id'].tolist().index('fire_large.ogg')
    drawn = cards.Cards(10_000_000).card(sources.Source('shown', Reader()), number)
    read = _Reading(drawn)
    assert 'a crack 0.5 to 0.9 s' in read.text
    assert 'Is it <hot>?' in read.text
    assert re.search(r'left:[\d.]+%;width:[\d.]+%', drawn)
    narrow = cards.Cards(1000)
    assert 'the page would be too large' in narrow.card(planted, number)
    assert narrow.left_out == 1


def test_a_million_records_are_counted_and_a_sample_is_read(million, planted):
    class Reader:
        index = million

        def __len__(self):
            return len(million)

    source = sources.Source('million', Reader())
    known = facts.gather([source])
    assert known.total.records == 1_000_000
    assert known.parts['million'][1:] == (1_000_000, 0)
    assert known.suspicions['no audio'].count == 1_000_000
    assert len(known.suspicions['no audio'].rows) < 50
    chosen = listening.choose([source, planted], 500, 3)
    assert len(set(chosen)) == 500
    assert chosen == listening.choose([source, planted], 500, 3)
    some = sources.Source('some', Reader(), np.arange(999_000, 1_000_000, 2, dtype=np.uint32))
    assert facts.gather([some]).total.records == 500


def test_the_page_of_a_name_without_split_has_every_split(small_data_dir, tmp_path):
    out = tmp_path / 'page.html'
    command = [sys.executable, '-m', 'alm_jax.data', 'inspect', 'small_sounds/small']
    command += ['--out', str(out), '--n=2', '--workers=0', f'--data_dir={small_data_dir}']
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert str(out) in ran.stdout
    text = ' '.join(_Reading(out.read_text()).text.split())
    assert re.search(r'train 33 .* test 7 .* 2 of 40 records, drawn at random', text)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['inspekt', 'x'], "Did you mean 'inspect'"),
        (['inspect', 'small_sound/small:train'], "'small_sound/small' is unknown"),
        (['leaks', 'a', 'b', 'c'], 'one or two datasets'),
    ],
)
def test_a_mistake_is_one_line(arguments, message, small_data_dir):
    command = [sys.executable, '-m', 'alm_jax.data', *arguments, f'--data_dir={small_data_dir}']
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert 'Traceback' not in ran.stderr


def test_facts_of_records_without_statistics_suspect_nothing():
    fields = {**record.DEFAULTS, 'num_samples': 16000, 'rate': 16000, 'duration': 1.0}
    fields['captions'] = ['A sound.']

    class Reader:
        index = index.Index.of({**fields, 'id': str(i)} for i in range(5))

        def __len__(self):
            return 5

    known = facts.gather([sources.Source('mine', Reader())])
    assert not any(suspicion.count for suspicion in known.suspicions.values())
