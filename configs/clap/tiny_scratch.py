"""The two-tower model of tiny.py with the audio tower from random weights; MiniLM as text tower.

COMMAND: python -m alm_jax.train --config configs/clap/tiny_scratch.py --workdir runs/tiny_scratch
ARGUMENTS: :smoke, tier=tiny|base|full, seed=N
HARDWARE: two CPU cores.
TIME and SCORE: see BUILD_NOTES.md, "Scores of the two-tower models".
"""

import pathlib

from alm_jax.config import experiment, parse_arg

tiny = experiment(pathlib.Path(__file__).with_name('tiny.py'))


def get_config(arg=None):
    smoke = parse_arg(arg, smoke=False, tier='tiny', seed=0, held_out='').smoke
    c = tiny.get_config(arg)
    c.name = 'clap/tiny_scratch'
    c.model.audio = {'name': 'spectrogram_transformer', 'variant': 'mu'}
    c.init_from = {'text': 'packaged:minilm', 'text_projection': 'identity'}
    c.freeze = (r'^text/', r'^text_projection/')
    c.optimizer.learning_rate = 1e-3
    c.augment.time_masks = 1
    c.augment.freq_masks = 1
    if not smoke:
        c.steps = 300
        c.checkpoint.every = 150
        for entry in c.evals.values():
            entry.every = 150
    return c
