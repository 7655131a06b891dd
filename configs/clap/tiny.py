"""A CLAP-style two-tower model from two pretrained towers, on the packaged recordings.

COMMAND: python -m alm_jax.train --config configs/clap/tiny.py --workdir runs/tiny
ARGUMENTS: :smoke (the same code path in a minute), tier=tiny|base|full, seed=N,
  held_out=PACKAGE (trains on the sounds of all other packages and evaluates on that one)
HARDWARE: two CPU cores.
TIME and SCORE: see BUILD_NOTES.md, "Scores of the two-tower models".
"""

from alm_jax.config import base, parse_arg

SOUND_PACKAGES = ('opensfx', 'tuxpaint', 'gcompris', 'ufoai', 'minetest', 'wesnoth', 'sonic_pi')


def get_config(arg=None):
    arg = parse_arg(arg, smoke=False, tier='tiny', seed=0, held_out='')
    dataset = f'packaged_sounds/{arg.tier}'
    c = base()
    c.name = 'clap/tiny'
    c.seed = arg.seed
    c.steps = 150
    c.batch_size = 64
    c.log_every = 10

    c.data.train = (
        {'name': f'{dataset}:train', 'weight': 0.7, 'where': {'kind': ['sound']}},
        {'name': f'{dataset}:train', 'weight': 0.15, 'where': {'kind': ['instrument']}},
        {'name': f'{dataset}:train', 'weight': 0.15, 'where': {'kind': ['speech']}},
    )
    c.data.scenes.share = 0.25

    c.front_end.preset = 'yamnet'
    c.front_end.seconds = 3.0
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

    c.optimizer.learning_rate = 4e-5
    c.optimizer.warmup_steps = 15
    c.checkpoint.every = 75

    validation = f'{dataset}:validation'
    c.evals = {
        'zero_shot_validation': {'evaluator': 'zero_shot', 'every': 75, 'data': validation},
        'retrieval_validation': {'evaluator': 'retrieval', 'every': 75, 'data': validation},
    }
    if arg.held_out:
        everything = f'{dataset}:train+validation+test'
        others = [package for package in SOUND_PACKAGES if package != arg.held_out]
        c.data.train = (
            {'name': everything, 'where': {'kind': ['sound'], 'package': others}},
            *({**entry, 'weight': 0.2} for entry in c.data.train[1:]),
        )
        where = {'kind': ['sound'], 'package': [arg.held_out]}
        c.evals = {'zero_shot': {'evaluator': 'zero_shot', 'data': everything, 'where': where}}
    if arg.smoke:
        c.steps = 20
        c.batch_size = 16
        c.checkpoint.every = 10
        c.optimizer.warmup_steps = 2
    return c
