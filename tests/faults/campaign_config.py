"""What the campaign of kills trains: all that draws random numbers is on, in two stages.

ARGUMENT: 'scenes', two towers on a mixture with scenes, or 'packs', a language model that hears, on
packed dialogues; it takes its tokenizer from ``--config.text.tokenizer``.
"""

from alm_jax.config import base

STEPS, BOUNDARY = 24, 11  # of both stages, and of the first
EVERY = 3  # steps between checkpoints
EVALUATED = (8, 11, 16, 24)  # of 'scenes': every eighth, and the last of a stage


def get_config(arg):
    c = base()
    c.steps = STEPS
    c.batch_size = 4
    c.log_every = 1
    c.data.train = (
        {'name': 'packaged_sounds/tiny:train', 'where': {'kind': ['sound']}, 'weight': 2.0},
        {'name': 'packaged_sounds/tiny:train', 'where': {'kind': ['speech']}},
    )
    c.data.workers = 1
    c.data.gain_db = 3.0
    c.front_end.seconds = 1.0
    c.augment.gain_db = 6.0
    c.augment.shift_seconds = 0.1
    c.augment.noise_snr_db = (10.0, 30.0)
    c.augment.time_masks = c.augment.freq_masks = 1
    c.model.audio = {'name': 'spectrogram_transformer', 'variant': 'mu', 'dropout': 0.1}
    c.optimizer.warmup_steps = 2
    c.checkpoint.every = EVERY
    c.checkpoint.keep = 3
    {'scenes': _scenes, 'packs': _packs}[arg](c)
    return c


def _scenes(c):
    c.data.scenes.share = 0.5
    c.text.lengths = (16,)
    c.model.text = {'name': 'bert', 'variant': 'mu', 'dropout': 0.1}
    c.model.embed_dim = 32
    c.model.dropout = 0.1
    c.task.objective = 'multi_positive'
    more = {'batch_size': 8, 'micro_batches': 2, 'optimizer.learning_rate': 5e-4}
    c.stages = (
        {'name': 'first', 'steps': BOUNDARY},
        {'name': 'second', 'steps': STEPS - BOUNDARY, **more},
    )
    c.evals = {
        'sounds': {
            'evaluator': 'zero_shot',
            'data': 'packaged_sounds/tiny:test',
            'where': {'package': ['minetest']},
            'classes': ('door', 'fire', 'glass'),
            'every': 8,
        }
    }


def _packs(c):
    c.data.text.dialogue = 'plain'
    c.data.pack = True
    c.data.max_clips = 3
    c.text.lengths = (64,)
    c.task.name = 'generative'
    c.model.family = 'two_head'
    c.model.text = {'name': 'decoder', 'variant': 'mu', 'dropout': 0.1, 'vocabulary': 4000}
    adapters = {'freeze': ('^audio/', '^text/(?!.*lora_)'), 'model.text.lora': {'rank': 2}}
    c.stages = (
        {'name': 'first', 'steps': BOUNDARY, 'freeze': ('^text/',)},
        {'name': 'second', 'steps': STEPS - BOUNDARY, **adapters},
    )
