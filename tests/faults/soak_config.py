"""What the soak trains: two small towers on packaged recordings, with all that a long run does.

ARGUMENT: the number of steps. Over thousands there are twenty checkpoints and ten evaluations.
"""

from alm_jax.config import base


def get_config(arg):
    c = base()
    c.steps = int(arg)
    c.batch_size = 2
    c.log_every = 10
    c.data.train = ({'name': 'packaged_sounds/tiny:train'},)
    c.data.workers = 2
    c.data.scenes.share = 0.2
    c.data.gain_db = 3.0
    c.front_end.seconds = 1.0
    c.augment.shift_seconds = 0.1
    c.augment.time_masks = 1
    c.text.lengths = (16,)
    c.model.audio = {'name': 'spectrogram_transformer', 'variant': 'mu', 'dropout': 0.1}
    c.model.text = {'name': 'bert', 'variant': 'mu', 'dropout': 0.1}
    c.model.embed_dim = 32
    c.optimizer.warmup_steps = 10
    c.checkpoint.every = max(c.steps // 20, 20)
    c.evals = {
        'sounds': {
            'evaluator': 'zero_shot',
            'data': 'packaged_sounds/tiny:test',
            'where': {'package': ['minetest']},
            'classes': ('door', 'fire', 'glass'),
            'every': max(c.steps // 10, 40),
        }
    }
    return c
