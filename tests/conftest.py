"""Real recordings and a small untrained run, for the tests that use a model as a user does."""

import csv
import fcntl
import os
import pathlib
import signal
import string
import subprocess
import sys
from collections.abc import Callable

import jax
import pytest
import tokenizers

from alm_jax import config as config_lib
from alm_jax.data import loader, location
from alm_jax.data.catalog.packaged_sounds import builder, fetch
from alm_jax.load import load
from alm_jax.tasks import build_task
from alm_jax.training import checkpoint, optimizer, state

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every program
# they start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # where tests find train_program

# label -> recordings of the package minetest-data; cuts of one recording differ after the dot.
RECORDINGS = {
    'breaking glass': [f'default_break_glass.{i}' for i in (1, 2, 3)],
    'steps in water': [f'default_water_footstep.{i}' for i in (1, 2, 3)],
    'steps in snow': [f'default_snow_footstep.{i}' for i in (1, 2, 3)],
    'a door': ['doors_door_open', 'doors_glass_door_close', 'doors_steel_door_open'],
    'fire': ['fire_fire.1', 'fire_fire.2', 'fire_large', 'fire_small'],
    'an explosion': ['tnt_explode'],
}


@pytest.fixture(scope='session')
def compiler_python() -> Callable[[str], str]:
    """Topology -> a Python that has its compiler, beside which jax looks for a device at import."""

    def find(topology: str) -> str:
        extra, module = ('cuda', 'jax_cuda12_plugin')
        if topology.startswith('v'):
            extra, module = ('tpu', 'libtpu')
        variable = f'ALM_JAX_PYTHON_{extra.upper()}'
        python = os.environ.get(variable, sys.executable)
        probe = f'import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)'
        if subprocess.run([python, '-c', probe]).returncode:
            pytest.skip(f'{module} is not installed; name a Python that has it in ${variable}')
        return python

    return find


@pytest.fixture(scope='session')
def packaged_tiny() -> pathlib.Path:
    """data_dir that holds packaged_sounds/tiny, built once for all sessions and workers.

    It lives where the user's own data does ($ALM_JAX_DATA or ~/.cache/alm_jax), so that a machine
    that ran the quickstart builds nothing here.
    """
    data_dir = location.data_dir()
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / '.tiny.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system when the worker dies
        builder.build('tiny', data_dir)
    return data_dir


@pytest.fixture(scope='session')
def recordings(tmp_path_factory):
    """A folder of 17 real recordings (OGG, 0.1 to 4 s) and captions.csv, all in split 'test'."""
    package = fetch.open_package('minetest-data')
    members = {member.rsplit('/', 1)[-1]: member for member in package.members()}
    folder = tmp_path_factory.mktemp('recordings')
    rows = []
    for label, names in RECORDINGS.items():
        for number, name in enumerate(names):
            (folder / f'{name}.ogg').write_bytes(package.read(members[f'{name}.ogg']))
            rows.append(
                {
                    'file': f'{name}.ogg',
                    'caption_1': f'The sound of {label}.',
                    'caption_2': f'One hears {label}, take {number}.' if number else '',
                    'label': label,
                    'tags': ','.join(label.split()[-1:]),
                    'split': 'test',
                    'recording_id': name.split('.')[0],
                }
            )
    with (folder / 'captions.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope='session')
def recordings_data(recordings):
    """The recordings as --data takes them."""
    return f'folder:{recordings}?captions=captions.csv&split=test'


@pytest.fixture(scope='session')
def tiny_run(tmp_path_factory, recordings):
    """The workdir of a run of two small random towers: checkpoints 1 and 2, the last being 2."""
    workdir = tmp_path_factory.mktemp('runs') / 'tiny'
    save_tokenizer(workdir / 'tokenizer')
    config = config_lib.base()
    config.name = 'tests/tiny'
    config.steps = 2
    config.batch_size = 2
    config.front_end.seconds = 1.0
    config.text.tokenizer = str(workdir / 'tokenizer')
    config.text.lengths = (32,)
    config.model.embed_dim = 16
    config.data.train = ({'folder': str(recordings), 'captions': 'captions.csv', 'split': 'train'},)
    (workdir / 'config.json').write_text(config_lib.to_json(config))
    task = build_task(config)
    spec = loader.batch_spec(config, window_samples=task.window_samples)
    with checkpoint.Checkpointer(workdir, keep=2) as checkpointer:
        for step in (1, 2):
            params, extra = jax.jit(lambda rng: task.init(rng, spec))(jax.random.key(step))
            run = state.create(params, extra, optimizer.make_optimizer(config, params))
            checkpointer.save(run.replace(step=run.step + step, data_step=run.data_step + step))
    return workdir


@pytest.fixture(scope='session')
def model(tiny_run):
    """The newest checkpoint of ``tiny_run``, loaded once."""
    return load(tiny_run)


def save_tokenizer(folder):
    """A WordPiece tokenizer that spells every word by its letters."""
    letters = string.ascii_lowercase + string.digits + '.,'
    pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *letters, *(f'##{letter}' for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token='[UNK]'))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
