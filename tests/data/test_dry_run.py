"""What a dry run says is what the batches are."""

import re
import subprocess
import sys

import chat_templates
import numpy as np
import pytest
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.data import dry_run, loader
from alm_jax.text.tokenizer import Tokenizer

_STEPS = 12


@pytest.fixture
def config(recordings, small_data_dir):
    config = config_lib.base()
    config.name = 'tests/dry'
    config.batch_size = 16
    config.data.dir = str(small_data_dir)
    config.data.workers = 0
    config.data.train = (
        {'folder': str(recordings), 'captions': 'captions.csv', 'weight': 3.0},
        {'name': 'small_sounds/small:train', 'weight': 1.0, 'where': {'kind': ['sound']}},
    )
    config.front_end.seconds = 0.5
    config.text.lengths = (8,)
    config.text.tokenizer = 'packaged:minilm'
    return config


def _number(text, pattern):
    return float(re.search(pattern, text)[1].replace(',', ''))


def test_it_says_what_the_batches_hold(config):
    said = dry_run.dry_run(config, _STEPS)
    made = loader.batches(
        config, sampling_rate=16000, window_samples=8000, tokenizer=dry_run.Words()
    )
    batches = [next(made) for _ in range(_STEPS)]
    made.close()
    rows = sum(len(batch['pcm']) for batch in batches)
    samples = sum(int(batch['num_samples'].sum()) for batch in batches)
    assert f'{_STEPS} batches of 16 rows' in said
    assert f'windows   0.5 s ({_STEPS} batches)' in said
    padding = 100 * (1 - samples / (rows * 8000))
    assert _number(said, r'padding +([\d.]+)%') == pytest.approx(padding, abs=0.051)
    assert 'skipped   0 of 192 records' in said
    assert re.search(r'speed +\d+ clips/s with 0 workers; first batch after', said)


def test_shares_asked_for_and_met(config):
    said = dry_run.dry_run(config, _STEPS)
    asked = [float(x) for x in re.findall(r' (\d+\.\d)%  +\d+\.\d%', said)]
    met = [float(x) for x in re.findall(r'\d+\.\d%  +(\d+\.\d)%', said)]
    assert asked == [75.0, 25.0]
    assert sum(met) == pytest.approx(100)
    np.testing.assert_allclose(met, asked, atol=4)
    assert "small_sounds/small:train {'kind': ['sound']}" in said
    # The schedule's average: three of twelve steps at 3 to 1, nine at 1 to 1.
    config.data.schedule = ((3, (1.0, 1.0)),)
    said = dry_run.dry_run(config, _STEPS)
    asked = [float(x) for x in re.findall(r' (\d+\.\d)%  +\d+\.\d%', said)]
    assert asked == [56.2, 43.8]


def test_windows_and_packs_are_told(config, recordings):
    config.data.train = ({'folder': str(recordings), 'captions': 'captions.csv'},)
    config.data.buckets = (0.5, 2.0)
    said = dry_run.dry_run(config, 12)
    counts = {float(s): int(n) for s, n in re.findall(r'([\d.]+) s \((\d+) batches\)', said)}
    assert set(counts) == {0.5, 2.0}
    assert sum(counts.values()) == 12
    config.data.buckets = ()
    config.data.pack = True
    config.front_end.seconds = 4.0
    packed = dry_run.dry_run(config, 12)
    assert _number(packed, r'A row holds ([\d.]+) records') > 2
    assert _number(packed, r'padding +([\d.]+)%') < _number(said, r'padding +([\d.]+)%')
    assert _number(packed, r'texts +(\d+) to') > 0  # places without a text are not counted
    assert re.search(r'speed +\d+ clips/s of \d+ records/s', packed)


def test_words_are_counted_where_the_tokenizer_is_not(config, tmp_path):
    said = dry_run.dry_run(config, 4)
    assert 'words: packaged:minilm is not fetched' in said
    texts = dry_run.Words()(['a b c', '', 'one two three four five'], (2, 4))
    assert texts['token_mask'].sum(axis=1).tolist() == [3, 0, 4]
    assert texts['token_ids'].shape == (3, 4)


def test_a_tokenizer_that_is_here_counts_tokens(config, tmp_path):
    Tokenizer.train(['abcdefghijklmnopqrstuvwxyz']).save(tmp_path / 'spells')
    config.text.tokenizer = str(tmp_path / 'spells')
    said = dry_run.dry_run(config, 4)
    assert f'tokens of {tmp_path}' in said
    assert 'median 8, longest 8; 100.0% fill every place or are cut' in said
    config.text.tokenizer = str(tmp_path / 'absent')
    with pytest.raises(ConfigError, match='no tokenizer at'):
        dry_run.dry_run(config, 4)


def test_what_is_longer_than_the_window_is_cropped(config, recordings):
    config.data.train = ({'folder': str(recordings), 'captions': 'captions.csv'},)
    config.front_end.seconds = 0.001 + 0.5
    whole = loader.open_mixture(config)[0][0].columns['duration']
    # 17 rows are one epoch.
    config.batch_size = 17
    said = dry_run.dry_run(config, 1)
    cropped = 100 * np.mean(whole > 0.501)
    lost = 100 * np.maximum(whole - 0.501, 0).sum() / whole.sum()
    assert _number(said, r'cropped +([\d.]+)% of the records') == pytest.approx(cropped, abs=0.051)
    assert _number(said, r'records, ([\d.]+)% of their seconds') == pytest.approx(lost, abs=0.051)
    assert _number(said, r'longest ([\d.]+) s') == pytest.approx(whole.max(), abs=0.006)
    assert 'not measured' in said


def test_bad_records_are_counted_with_their_reasons(config, recordings, tmp_path):
    for path in recordings.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config.data.train = ({'folder': str(tmp_path), 'captions': 'captions.csv'},)
    loader.open_mixture(config)  # headers are read now
    cut = (tmp_path / 'fire_large.ogg').read_bytes()
    (tmp_path / 'fire_large.ogg').write_bytes(cut[: len(cut) // 2])
    config.data.max_bad_share = 0.0005
    said = dry_run.dry_run(config, 6)
    assert 'A run would stop: config.data.max_bad_share is 0.0005' in said
    assert _number(said, r'skipped +(\d+) of') > 0
    assert re.search(r'fire_large\.ogg: .*truncated', said)
    assert '1 different ones of' in said


def test_the_command_makes_no_model_and_starts_no_backend(small_data_dir, tmp_path):
    file = tmp_path / 'experiment.py'
    file.write_text(
        'from alm_jax.config import base\n'
        'def get_config(arg=None):\n'
        '    c = base()\n'
        f'    c.data.dir = {str(small_data_dir)!r}\n'
        "    c.data.train = ({'name': 'small_sounds/small:train'},)\n"
        '    c.batch_size = 4\n'
        '    c.front_end.seconds = 0.3\n'
        '    return c\n'
    )
    look = (
        'import sys, runpy\n'
        f"sys.argv = ['data', 'dry_run', '--config', {str(file)!r}, '--steps=3']\n"
        'try:\n'
        "    runpy.run_module('alm_jax.data', run_name='__main__')\n"
        'except SystemExit as end:\n'
        '    assert not end.code, end.code\n'
        "bridge = sys.modules.get('jax._src.xla_bridge')\n"
        "print('backends', bridge and len(bridge._backends))\n"
        "print('models', [m for m in sys.modules if m.startswith('alm_jax.models')])\n"
    )
    ran = subprocess.run([sys.executable, '-c', look], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert '3 batches of 4 rows, no model.' in ran.stdout
    assert re.search(r'backends (None|0)\n', ran.stdout)
    assert 'models []' in ran.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['dry_run'], 'give --config'),
        (['dry_run', 'packaged_sounds/tiny:train'], 'takes a --config and no name'),
    ],
)
def test_a_mistake_is_one_line(arguments, message):
    command = [sys.executable, '-m', 'alm_jax.data', *arguments]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.startswith('error: ')
    assert message in ran.stderr


def test_a_misspelt_front_end_is_told(config):
    config.front_end = ConfigDict({**config.front_end, 'preset': 'yamnett'})
    with pytest.raises(ConfigError, match="Did you mean 'yamnet'"):
        dry_run.dry_run(config, 2)


@pytest.mark.parametrize('pack', [False, True])
def test_it_shows_a_dialogue(config, tmp_path, pack):
    tokenizer = chat_templates.byte_level()
    tokenizer.save(tmp_path)
    config.text.tokenizer = str(tmp_path)
    config.text.lengths = (160,)
    config.data.text.dialogue = 'chat'
    config.data.pack, config.data.max_clips = pack, 4
    config.front_end.preset = 'whisper_80'
    said = dry_run.dry_run(config, _STEPS)
    shares = re.search(
        r'places +160 of a row, .*: ([\d.]+)% audio, ([\d.]+)% prompts, ([\d.]+)% answers, '
        r'([\d.]+)% padding; ([\d.]+) dialogues a row',
        said,
    )
    *places, dialogues = map(float, shares.groups())
    assert sum(places) == pytest.approx(100, abs=0.3)
    assert (dialogues > 1.5) == pack
    assert (places[3] < 40) == pack
    shown = said.partition('in «»:\n')[2]
    assert re.match(
        r'  <\|im_start\|>system\n  You help\.<\|im_end\|>\n  <\|im_start\|>user\n'
        r'  \[\d+\]<\|im_end\|>\n  <\|im_start\|>assistant\n  «.*\.<\|im_end\|>»\n',
        shown,
    )


def test_a_tokenizer_that_is_not_here_is_trained(config):
    config.text.tokenizer = 'packaged:smollm2'
    config.text.lengths = (160,)
    config.data.text.dialogue = 'chat'
    said = dry_run.dry_run(config, 1)
    assert 'tokens of the captions, as packaged:smollm2 is not fetched' in said
    assert 'prepare weights/smollm2' in said
