"""A language model that hears, on the packaged recordings: YAMNet, a linear map, SmolLM2-135M.

COMMAND: python -m alm_jax.train --config configs/generative/tiny.py --workdir runs/speaks
ARGUMENTS: :smoke (the same code path in a minute, with a language model from scratch),
  tier=tiny|base|full, seed=N
HARDWARE: two CPU cores.
TIME and SCORE: a quarter of an hour; see BUILD_NOTES.md, "Captions of the tiny language model".

Three stages: the connector alone learns to say what is heard, then low-rank terms of the language
model with it, then both are asked for it. The last is the longest: it is what is evaluated.
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, smoke=False, tier='tiny', seed=0)
    dataset = f'packaged_sounds/{arg.tier}'
    c = base()
    c.name = 'generative/tiny'
    c.seed = arg.seed
    c.batch_size = 8  # rows, of about four clips each
    c.log_every = 10

    sounds = {'name': f'{dataset}:train', 'weight': 0.8, 'where': {'kind': ['sound']}}
    instruments = {'name': f'{dataset}:train', 'weight': 0.2, 'where': {'kind': ['instrument']}}
    c.data.train = (sounds, instruments)
    c.data.text.dialogue = 'plain'
    c.data.pack = True
    c.data.max_clips = 5
    c.front_end.preset = 'yamnet'
    c.front_end.seconds = 3.0
    c.augment.gain_db = 6.0
    c.augment.shift_seconds = 0.25

    c.task.name = 'generative'
    c.model.family = 'two_head'
    c.model.audio = {'name': 'yamnet', 'scores': True}
    c.model.connector = {'name': 'linear'}
    c.model.text = {'name': 'decoder', 'variant': 'smollm2_135m', 'lora': {'rank': 16}}
    c.text.tokenizer = 'packaged:smollm2'
    c.text.lengths = (64,)
    # What YAMNet recognises begins as the tokens of its name.
    c.init_from = {
        'audio': 'packaged:yamnet',
        'text': 'packaged:smollm2',
        'connector': 'class_names:yamnet',
    }
    c.freeze = (r'^audio/', r'^text/(?!.*lora_)')

    c.optimizer.learning_rate = 1e-3
    # The connector begins as the names of what is recognised; a high rate would forget those of
    # sounds that are not among so few recordings.
    c.optimizer.rates = ((r'lora_', 2.0), (r'^connector/', 0.3))
    c.optimizer.warmup_steps = 5
    c.checkpoint.every = 20
    steps = (30, 110, 140)
    evaluation = {
        'evaluator': 'captioning',
        'data': f'{dataset}:validation',
        'train': f'{dataset}:train',
        'max_tokens': 24,
    }
    if arg.smoke:
        steps = (4, 3, 3)
        c.batch_size = 4
        c.log_every = 1
        c.checkpoint.every = 5
        c.optimizer.warmup_steps = 1
        c.model.text = {'name': 'decoder', 'variant': 'mu', 'lora': {'rank': 2}}
        c.init_from = {'audio': 'packaged:yamnet', 'connector': 'class_names:yamnet'}
        c.freeze = (r'^audio/',)
        evaluation |= {'limit': 8, 'max_tokens': 8, 'conditions': ('shuffled',)}

    c.steps = sum(steps)
    captions, adapters, instructions = steps
    c.stages = (
        {'name': 'connector', 'steps': captions, 'freeze': (*c.freeze, r'lora_')},
        {'name': 'adapters', 'steps': adapters},
        {
            'name': 'instructions',
            'steps': instructions,
            'data.text.instruction': True,
            'evals': {'captioning_validation': evaluation},
        },
    )
    return c
