"""Two small towers and rendered sounds, for the tests of launchers: no download but a tokenizer."""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, steps=12)
    c = base()
    c.steps = arg.steps
    c.batch_size = 8
    c.log_every = 1
    c.data.train = ({'name': 'synthetic_scenes:train'},)
    c.data.workers = 1
    c.front_end.seconds = 1.0
    c.model.embed_dim = 32
    c.checkpoint.every = 4
    return c
