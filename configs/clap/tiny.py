"""A CLAP-style two-tower model from two pretrained towers, on the packaged recordings.

COMMAND: python -m alm_jax.train --config configs/clap/tiny.py --workdir runs/tiny
ARGUMENTS: :smoke (a minute, one tier smaller in every way), tier=tiny|base|full, seed=N
HARDWARE: two CPU cores.
TIME and SCORE: see BUILD_NOTES.md, "Scores of the two-tower models".
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, smoke=False, tier='tiny', seed=0)
    dataset = f'packaged_sounds/{arg.tier}'
    c = base()
    c.name = 'clap/tiny'
    c.seed = arg.seed
    c.steps = 250
    c.batch_size = 64
    c.log_every = 10

    c.data.train = (
        {'name': f'{dataset}:train', 'weight': 0.7, 'where': {'kind': ['sound']}},
        {'name': f'{dataset}:train', 'weight': 0.15, 'where': {'kind': ['instrument']}},
        {'name': f'{dataset}:train', 'weight': 0.15, 'where': {'kind': ['speech']}},
    )
    c.data.scenes.share = 0.25

    c.front_end.preset = 'yamnet'
    c.front_end.seconds = 4.0
    c.augment.gain_db = 6.0
    c.augment.shift_seconds = 0.25

    c.text.tokenizer = 'packaged:minilm'
    c.text.lengths = (24,)

    c.model.audio = {'name': 'yamnet', 'scores': True}
    c.model.text = {'name': 'bert', 'variant': 'minilm'}
    c.model.embed_dim = 384
    c.init_from = {
        'audio': 'packaged:yamnet',
        'text': 'packaged:minilm',
        'text_projection': 'identity',
        'audio_projection': 'class_names:yamnet',
    }
    # So few recordings teach heads, not towers: see BUILD_NOTES.md for what was tried.
    c.freeze = (r'^audio/', r'^text/', r'^text_projection/')
    c.task.objective = 'multi_positive'

    c.optimizer.learning_rate = 3e-5
    c.optimizer.warmup_steps = 25
    c.checkpoint.every = 125

    validation = f'{dataset}:validation'
    c.evals = {
        'zero_shot_validation': {'evaluator': 'zero_shot', 'every': 125, 'data': validation},
        'retrieval_validation': {'evaluator': 'retrieval', 'every': 125, 'data': validation},
    }
    if arg.smoke:
        c.steps = 20
        c.batch_size = 16
        c.checkpoint.every = 10
        c.optimizer.warmup_steps = 2
    return c
