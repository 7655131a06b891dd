"""A spectrogram ViT-B and RoBERTa-base at a batch of 32,768 on a v5e pod.

COMMAND: python -m alm_jax.train --config configs/clap/vit_b_v5e.py --workdir runs/vit_b
         python -m alm_jax.compile --config configs/clap/vit_b_v5e.py  # the plan
ARGUMENTS: those of vit_b_h100.py, whose model, data and evaluations these are.
HARDWARE: TPU v5e, 256 chips, topology 16x16, 128 pairs a chip.
TIME and SCORE: not run on such hardware yet. By the compiler and the published figures of the chip
  a step takes 6.3 of 15.75 GiB and at least 440 ms (MFU 46.7 %), bound by the memory's bandwidth.
"""

import pathlib

from alm_jax.config import experiment


def get_config(arg=None):
    smoke = 'smoke' in (arg or '').split(',')
    c = experiment(pathlib.Path(__file__).with_name('vit_b_h100.py')).get_config(arg)
    c.name = 'clap/vit_b_v5e'
    c.topology = 'v5e:16x16'
    if not smoke:
        c.steps = 10_000
        c.batch_size = 32_768
        c.mesh = {'data': -1, 'fsdp': 16, 'tensor': 1, 'sequence': 1, 'dcn': -1}
        c.optimizer.warmup_steps = 500
        c.checkpoint.every = 500
    return c
