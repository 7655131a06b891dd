"""Real garbage through the loader and its workers: what is skipped, counted, listed, and when not.

The files are made in every way in which they go wrong; nothing is stood in for.
"""

import csv
import io
import itertools
import json
import os
import re
import shutil
import signal
import struct
import tarfile
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
from makers import letters

from alm_jax.config import ConfigError, base
from alm_jax.data import loader, sources
from alm_jax.data.workers import WorkerDied

RATE = 16_000
LENGTH = 32  # of a text in the batch: enough to tell the records apart


def noise(seconds=1.5, channels=1):
    shape = (round(seconds * RATE), channels)
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def encoded(x, container='WAV', codec='PCM_16', rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, x, rate, format=container, subtype=codec)
    return file.getvalue()


def wav(*, claimed=None, rate=RATE, channels=1, bits=16):
    data = (noise()[:, 0] * 32767).astype('<i2').tobytes()
    claimed = len(data) if claimed is None else claimed
    form = struct.pack('<HHIIHH', 1, channels, rate, 0, channels * bits // 8, bits)
    head = b'RIFF' + struct.pack('<I', 2**32 - 1) + b'WAVEfmt ' + struct.pack('<I', 16) + form
    return head + b'data' + struct.pack('<I', claimed) + data


def with_sample(value):
    x = noise(1.0)
    x[RATE // 2] = value
    return encoded(x, codec='FLOAT')


def flac_claiming(samples):
    content = bytearray(encoded(noise(), 'FLAC'))
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = (samples & 2**32 - 1).to_bytes(4, 'big')
    return bytes(content)


def cut(content):
    return content[: len(content) // 2]


# file -> (content, '' where it is legal or else what is said of it)
AUDIO = {
    'mp3_named_so.wav': (encoded(noise(), 'MP3', None), ''),
    'ogg_named_so.mp3': (encoded(noise(), 'OGG', 'VORBIS'), ''),
    'eight_channels.wav': (encoded(noise(channels=8)), ''),
    'eight_bits.wav': (encoded(noise(), codec='PCM_U8'), ''),
    'float.wav': (encoded(noise(), codec='FLOAT'), ''),
    '384_khz.wav': (encoded(noise(), rate=384_000), ''),
    'silent.flac': (encoded(0 * noise(), 'FLAC'), ''),
    'one_sample.wav': (encoded(noise()[:1]), ''),
    'claims_4_gib.wav': (wav(claimed=2**32 - 1), ''),  # as what is streamed does
    'unknown_length.flac': (flac_claiming(0), ''),
    'truncated.wav': (cut(encoded(noise())), 'is truncated'),
    'truncated.flac': (cut(encoded(noise(), 'FLAC')), 'decoder lost sync|is truncated'),
    'truncated.ogg': (cut(encoded(noise(9), 'OGG', 'VORBIS')), 'is truncated'),
    'truncated.mp3': (cut(encoded(noise(), 'MP3', None)), 'is truncated'),
    'claims_1_gib.wav': (wav(claimed=2**30), 'is truncated'),
    'claims_2_36.flac': (flac_claiming(2**36 - 1), 'is truncated'),
    'nan.wav': (with_sample(np.nan), '1 NaN or infinite samples'),
    'inf.wav': (with_sample(np.inf), '1 NaN or infinite samples'),
    'integers.wav': (with_sample(20_000.0), r'samples up to 20000; float audio must lie in'),
    'empty.wav': (b'', 'empty, 0 bytes'),
    'text.flac': (b'This is no audio.\n' * 99, 'Format not recognised'),
    'no_samples.wav': (encoded(noise()[:0]), 'no samples'),
    '0_hz.wav': (wav(rate=0), '0 Hz or above'),
    '2_31_hz.wav': (wav(rate=2**31), '0 Hz or above'),
    '400_khz.wav': (wav(rate=400_000), 'a sampling rate of 400000 Hz'),
    '0_channels.wav': (wav(channels=0), 'Channel count is zero'),
    '0_bits.wav': (wav(bits=0), 'unimplemented format'),
}
# name -> (cells of the row, '' or what is said); their file is a sound one unless they name another
ROWS = {
    'control': ({'caption': 'A \x00dog\x07 \x1b[1mbarks\u200b'}, ''),
    'half_a_letter': ({'caption': 'Half of a letter: \ud83d.'}, ''),
    'long': ({'caption': 'word ' * 600_000}, 'a text of 2999999 characters; at most 65536'),
    'empty': ({'caption': ''}, "column 'caption' is empty"),
    'blank': ({'caption': ' \t '}, "column 'caption' is empty"),
    'controls_alone': ({'caption': '\x00\x07'}, 'no caption, no tags and no label'),
    'number': ({'caption': 7}, "column 'caption' is 7"),
    'split': ({'caption': 'A dog.', 'split': 'tset'}, "Did you mean 'test'"),
    'missing': ({'file': 'none.wav', 'caption': 'A dog.'}, 'there is no such file'),
    'absolute': ({'file': '/etc/hostname', 'caption': 'A dog.'}, 'outside the folder'),
    'parent': ({'file': '../dog.wav', 'caption': 'A dog.'}, 'outside the folder'),
    'nul': ({'file': 'dog\x00.wav', 'caption': 'A dog.'}, 'outside the folder'),
    'folder': ({'file': 'folder', 'caption': 'A dog.'}, 'a folder, a pipe or a device'),
    'pipe': ({'file': 'a_pipe.wav', 'caption': 'A dog.'}, 'a folder, a pipe or a device'),
    'no_file': ({'caption': 'A dog.', 'file': ''}, "column 'file' is empty"),
    'other_label': ({'file': 'float.wav', 'caption': 'Loud.', 'label': 'x'}, "has label '' and"),
}
LINES = {b'{"file": "sound.wav", "capt': 'not JSON', b'["sound.wav"]': 'expected an object'}
LINES[b'{"file": "sound.wav", "caption": "gr\xf6\xdfer"}'] = 'not JSON'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Every case, in one manifest: audio files first, then rows, then lines that are none."""
    root = tmp_path_factory.mktemp('garbage')
    (root / 'folder').mkdir()
    os.mkfifo(root / 'a_pipe.wav')
    lines = []
    for name, (content, _) in AUDIO.items():
        (root / name).write_bytes(content)
        lines.append({'file': name, 'caption': name})
    with open(root / 'hour.wav', 'wb') as file:
        file.write(wav(claimed=2**31))
        os.truncate(root / 'hour.wav', 44 + 2 * RATE * 3600)
    lines.append({'file': 'hour.wav', 'caption': 'hour.wav'})
    for name, (cells, _) in ROWS.items():
        (root / f'row_{name}.wav').write_bytes(encoded(noise()))
        lines.append({'file': f'row_{name}.wav'} | cells)
    content = [json.dumps(line).encode() for line in lines] + list(LINES)
    (root / 'all.jsonl').write_bytes(b'\n'.join(content))
    return root


@pytest.fixture
def config(tmp_path):
    config = base()
    config.data.dir = str(tmp_path / 'data')
    config.batch_size = 16
    config.text.lengths = (LENGTH,)
    config.data.workers = 2
    config.data.prefetch = 1
    return config


def started(config, **options):
    return loader.batches(
        config, sampling_rate=RATE, window_samples=RATE, tokenizer=letters, **options
    )


def captions_of(batches):
    """{what its caption was: samples before the padding} of each row."""
    return {
        ''.join(map(chr, ids[ids > 0])): int(count)
        for batch in batches
        for ids, count in zip(batch['token_ids'], batch['num_samples'])
    }


def quarantined(path):
    lines = map(json.loads, path.read_text(encoding='utf-8').splitlines())
    return {line['id']: line for line in lines}


def test_all_that_is_bad_is_skipped_with_its_reason_and_all_else_is_heard(config, folder, tmp_path):
    config.data.max_bad_share = 1.0
    config.data.train = ({'folder': str(folder), 'captions': 'all.jsonl'},)
    made = started(config, quarantine=tmp_path / 'quarantine.jsonl')
    batches = [{n: x.copy() for n, x in b.items()} for b in itertools.islice(made, 4)]
    made.close()
    heard = captions_of(batches)
    legal = {name for name, (_, said) in AUDIO.items() if not said} | {'hour.wav'}
    assert heard.keys() == {*legal, 'A dog [1mbarks', 'Half of a letter: ?.'}
    assert heard['one_sample.wav'] == 1
    assert heard['384_khz.wav'] == 1000  # 1.5 * 16 000 samples at 384 kHz, at 16 kHz
    assert heard['hour.wav'] == heard['eight_channels.wav'] == RATE

    found = quarantined(tmp_path / 'quarantine.jsonl')
    expected = {name: said for name, (_, said) in AUDIO.items() if said}
    rows = [*AUDIO, 'hour.wav', *ROWS, *LINES]
    for name, (cells, said) in ROWS.items():
        of_row = said and (name in ('empty', 'blank', 'number', 'split') or 'outside' in said)
        of_row = of_row or name in ('no_file', 'other_label')
        file = cells.get('file', f'row_{name}.wav')
        expected |= {f'row {1 + rows.index(name)}' if of_row else file: said} if said else {}
    expected |= {f'row {1 + rows.index(line)}': said for line, said in LINES.items()}
    assert found.keys() == expected.keys()
    for name, said in expected.items():
        assert re.search(said, found[name]['reason']), found[name]
        assert found[name]['dataset'] == 'all.jsonl'
    listed = [line for line in found.values() if line['data_step'] is None]
    assert len(listed) == 8 + 12 + len(LINES)
    assert made.skipped >= len(found)
    assert made.bad_records.read == 4 * 16 + made.skipped - len(listed)

    # Another start of the run, or another host, lists nothing twice; an end that was cut is mended.
    with open(tmp_path / 'quarantine.jsonl', 'ab') as file:
        file.write(b'{"dataset": "all.js')
    again = started(config, quarantine=tmp_path / 'quarantine.jsonl')
    other = started(config, process_index=1, process_count=2)
    next(again), next(other)
    again.close(), other.close()
    lines = (tmp_path / 'quarantine.jsonl').read_bytes().splitlines()
    assert lines.count(b'{"dataset": "all.js') == len(lines) - len(found) == 1
    assert again.skipped >= len(listed) > other.skipped


def write_rows(root, name, rows, encoding='utf-8'):
    with open(root / name, 'w', newline='', encoding=encoding) as file:
        csv.writer(file).writerows([('file', 'caption'), *rows])


@pytest.fixture
def few(tmp_path):
    """199 records, and one whose file is not there."""
    root = tmp_path / 'few'
    root.mkdir()
    (root / '0.wav').write_bytes(encoded(noise()))
    for number in range(1, 199):
        (root / f'{number}.wav').symlink_to(root / '0.wav')
    write_rows(root, 'my.csv', [(f'{n}.wav', f'Sound {n}.') for n in range(200)])
    return root


def test_what_cannot_be_listed_counts_up_to_the_share_and_then_ends_the_run_at_once(config, few):
    config.data.workers = 0
    config.data.train = ({'folder': str(few), 'captions': 'my.csv'},)
    made = started(config)
    next(made)
    made.close()
    assert (made.skipped, made.bad_records.read) == (1, 16)

    config.data.on_bad = 'fail'
    with pytest.raises(ConfigError) as raised:
        started(config)
    assert 'my.csv: 1 of 200 records cannot be used.' in str(raised.value)
    assert 'row 201: 199.wav (there is no such file)' in str(raised.value)

    config.data.on_bad = 'skip'
    (few / '7.wav').unlink(), (few / '8.wav').unlink()
    with pytest.raises(ConfigError) as raised:
        started(config)
    said = '3 of 200 records cannot be used, more than config.data.max_bad_share (0.01) allows'
    assert said in str(raised.value)
    assert all(f'{n}.wav (there is no such file)' in str(raised.value) for n in (7, 8, 199))

    # A mended folder is opened anew; who evaluates allows nothing, but of the split that is asked.
    for number in (7, 8, 199):
        (few / f'{number}.wav').symlink_to(few / '0.wav')
    config.data.on_bad = 'fail'
    assert len(loader.open_mixture(config)[0][0]) == 200
    write_rows(few, 'my.csv', [('0.wav', 'It is.'), ('no.wav', 'It is not.')])
    with pytest.raises(ConfigError, match='1 of 2 records'):
        sources.open_source(config.data.train[0], config.data.dir)


def test_a_csv_row_that_is_wrong_is_left_out_and_a_column_that_is_missing_is_not(config, few):
    config.data.max_bad_share = 0.9
    config.data.train = ({'folder': str(few), 'captions': 'my.csv'},)
    write_rows(few, 'my.csv', [('0.wav', 'größer'), ('1.wav', 'A dog.')], 'latin-1')
    with open(few / 'my.csv', 'a') as file:
        file.write('2.wav,A dog, barking\n3.wav,"A\ncat"\n')
    (source,), _ = loader.open_mixture(config)
    assert [source.read(i)['captions'] for i in range(2)] == [['A dog.'], ['A\ncat']]
    reasons = [bad.reason for bad in source.left_out]
    assert [re.sub('.*my.csv, ', '', reason) for reason in reasons] == [
        'row 2: not utf-8 text.',
        'row 4: 3 cells; expected 2.',
    ]
    (few / 'my.csv').write_text('file,kaption\n0.wav,A dog.\n')
    with pytest.raises(ConfigError, match="there is no column 'caption'"):
        loader.open_mixture(config)


def test_too_many_bad_records_name_the_worst_tar(config, tmp_path):
    for number in range(3):
        with tarfile.open(tmp_path / f'{number}.tar', 'w') as tar:
            for i in range(10):
                is_bad = (number, i) in ((0, 0), *((1, j) for j in range(4)))
                content = encoded(noise(), 'FLAC')
                members = {f'{i}.flac': cut(content) if is_bad else content}
                members[f'{i}.txt'] = f'Sound {number} {i}.'.encode()
                if (number, i) == (2, 0):
                    members = {'0.txt': b'It has no audio.'}
                for name, content in members.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    config.data.train = ({'tars': str(tmp_path / '{0..2}.tar')},)
    config.data.on_bad, config.data.workers = 'fail', 0
    with pytest.raises(ConfigError, match=rf'1 of 30 .*, 1, are of {tmp_path}/2\.tar'):
        started(config)
    config.data.on_bad, config.data.max_bad_share = 'skip', 0.04
    made = started(config, quarantine=tmp_path / 'bad.jsonl')
    with pytest.raises(ConfigError) as raised:
        list(itertools.islice(made, 200))
    worst = rf'more than config\.data\.max_bad_share \(0\.04\) .*are of {tmp_path}/1\.tar of tars:'
    assert re.search(worst, str(raised.value))
    found = quarantined(tmp_path / 'bad.jsonl')
    assert {id: line['shard'] for id, line in found.items()} == {
        **{f'1/{i}': f'{tmp_path}/1.tar' for i in range(4)},
        '0/0': f'{tmp_path}/0.tar',
        '2/0': f'{tmp_path}/2.tar',
    }


def test_text_of_a_parquet_file_that_is_not_utf_8_is_left_out(config, tmp_path):
    texts = pa.array([b'A dog.', b'gr\xf6\xdfer'], pa.binary()).view(pa.string())
    audio = [{'bytes': encoded(noise(), 'FLAC'), 'path': f'{i}.flac'} for i in range(2)]
    table = pa.table({'audio': audio, 'caption': texts})
    pa.parquet.write_table(table, tmp_path / 'a.parquet')
    entry = {'parquet': str(tmp_path / 'a.parquet')}
    source = sources.open_source(entry, tmp_path / 'data', max_bad_share=0.5)
    assert len(source) == 1
    (bad,) = source.left_out
    assert (bad.id, bad.shard) == ('a/1', str(tmp_path / 'a.parquet'))
    assert bad.reason.endswith('a.parquet, row 1: not UTF-8 text.')
    with pytest.raises(ConfigError, match=r'more than config\.data\.max_bad_share \(0\.1\)'):
        sources.open_source(entry, tmp_path / 'data', max_bad_share=0.1)


@pytest.fixture
def prepared(small_data_dir, tmp_path):
    """A copy of the prepared dataset, with its index, and its first shard of records to train."""
    shutil.copytree(small_data_dir / 'small_sounds', tmp_path / 'data' / 'small_sounds')
    sources.open_source('small_sounds/small:train', tmp_path / 'data')
    (shard,) = (tmp_path / 'data').rglob('*-train.array_record-00000-of-*')
    return shard


def flip(shard, at):
    """Turns a bit over, in place and in no time that the file tells of."""
    status = shard.stat()
    content = bytearray(shard.read_bytes())
    content[at] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize('is_indexed', [True, False])
def test_a_damaged_record_of_a_prepared_dataset_is_skipped(config, prepared, tmp_path, is_indexed):
    flip(prepared, 3_000)  # in its first record
    if not is_indexed:
        (prepared.parent / 'index-train.arrow').unlink()
    config.data.train = ({'name': 'small_sounds/small:train'},)
    config.data.workers = 0
    made = started(config, quarantine=tmp_path / 'bad.jsonl')
    epoch = 33 // config.batch_size + 1
    for _ in range(epoch):
        next(made)
    made.close()
    (bad,) = quarantined(tmp_path / 'bad.jsonl').values()
    assert made.skipped >= 1
    assert bad['shard'] == prepared.name
    assert re.search(r'record \d+ is damaged \(Corrupted Riegeli/records file', bad['reason'])
    config.data.max_bad_share = 0.0005
    made = started(config)
    with pytest.raises(ConfigError, match=f'are of {prepared.name} of small_sounds/small:train'):
        list(itertools.islice(made, epoch))


def test_a_prepared_shard_that_is_cut_off_is_named(prepared, tmp_path):
    os.truncate(prepared, prepared.stat().st_size // 2)
    with pytest.raises(ConfigError, match=rf'{prepared.name} is cut off or damaged: no record'):
        sources.open_source('small_sounds/small:train', tmp_path / 'data')


def test_a_worker_that_is_killed_is_reported_with_the_record_it_reads(config, few):
    config.data.max_bad_share, config.data.prefetch = 1.0, 2
    config.data.train = ({'folder': str(few), 'captions': 'my.csv'},)
    made = started(config)
    for path in few.glob('*.wav'):  # after it was listed, every file becomes a pipe
        path.unlink()
        os.mkfifo(path)

    def kill():
        last = None
        while (now := made._made._reading[1].tolist()) != last or now[0] < 0:
            last = now  # still at the same record: the pipe, which says nothing
            time.sleep(1)
        os.kill(made._made._processes[1].pid, signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(WorkerDied) as raised:
        list(itertools.islice(made, 50))
    message = r"loader worker 1 of 2 .*SIGKILL.* while it read record '\d+\.wav' of my\.csv \(batch"
    assert re.search(message, str(raised.value))
