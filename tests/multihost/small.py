"""Two small towers, with all that draws random numbers switched on, for jobs of several processes.

Argument: the folder of recordings, of which some are damaged.
"""

from alm_jax.config import base


def get_config(folder):
    c = base()
    c.steps = 50
    c.batch_size = 8
    c.log_every = 1
    c.data.train = (
        {'folder': folder, 'captions': 'captions.csv', 'split': 'test', 'weight': 0.2},
        {'name': 'packaged_sounds/tiny:train', 'where': {'kind': ['sound']}},
    )
    c.data.scenes.share = 0.5
    c.data.workers = 0
    c.data.max_bad_share = 1.0
    c.front_end.seconds = 0.5
    c.augment.gain_db = 6.0
    c.augment.shift_seconds = 0.1
    c.augment.noise_snr_db = (10.0, 30.0)
    c.augment.time_masks = c.augment.freq_masks = 1
    c.text.tokenizer = f'{folder}/tokenizer'
    c.text.lengths = (16,)
    c.model.audio = {'name': 'spectrogram_transformer', 'variant': 'mu', 'dropout': 0.1}
    c.model.text = {'name': 'bert', 'variant': 'mu', 'dropout': 0.1}
    c.model.embed_dim = 32
    c.model.dropout = 0.1
    c.task.objective = 'multi_positive'
    # A collective between processes takes milliseconds whatever its size: fewer gradients.
    c.freeze = ('/(bias|scale)$',)
    c.optimizer.warmup_steps = 2
    c.checkpoint.every = 40
    data = 'packaged_sounds/tiny:test'
    c.evals = {
        'speech': {'evaluator': 'retrieval', 'data': data, 'where': {'kind': ['speech']}},
        'sounds': {
            'evaluator': 'zero_shot',
            'data': data,
            'where': {'package': ['minetest']},
            'classes': ('door', 'fire', 'glass'),
        },
    }
    return c
