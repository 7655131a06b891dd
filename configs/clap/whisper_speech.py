"""A two-tower model for speech: Whisper tiny.en's encoder and MiniLM, on the packaged recordings.

COMMAND: python -m alm_jax.prepare packaged_sounds --tier base
         python -m alm_jax.prepare weights/minilm weights/whisper_tiny_en
ARGUMENTS: :smoke (the same code path in a minute), tier=tiny|base|full, seed=N
HARDWARE: one CPU core.
TIME and SCORE: see BUILD_NOTES.md, "Speech by Whisper's encoder".
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, smoke=False, tier='base', seed=0)
    dataset = f'packaged_sounds/{arg.tier}'
    speech = {'kind': ['speech']}
    c = base()
    c.name = 'clap/whisper_speech'
    c.seed = arg.seed
    c.steps = 400
    c.batch_size = 64
    c.log_every = 10

    # A crop of a longer prompt would not hold all that its caption says.
    c.data.train = ({'name': f'{dataset}:train', 'where': {**speech, 'duration': {'max': 4.0}}},)

    c.front_end.preset = 'whisper_80'
    c.front_end.seconds = 2.0
    c.augment.gain_db = 6.0
    c.augment.shift_seconds = 0.1

    c.text.tokenizer = 'packaged:minilm'
    c.text.lengths = (32,)

    c.model.audio = {'name': 'whisper', 'variant': 'tiny', 'masked': True}
    c.model.text = {'name': 'bert', 'variant': 'minilm'}
    c.model.embed_dim = 384
    c.init_from = {
        'audio': 'packaged:whisper_tiny_en',
        'text': 'packaged:minilm',
        'text_projection': 'identity',
    }
    c.freeze = (r'^audio/', r'^text/')
    c.task.objective = 'multi_positive'

    c.optimizer.learning_rate = 2e-3
    c.optimizer.warmup_steps = 20
    c.checkpoint.every = 200

    c.evals = {
        'retrieval_validation': {
            'evaluator': 'retrieval',
            'every': 200,
            'data': f'{dataset}:validation',
            'where': speech,
        },
    }
    if arg.smoke:
        c.steps = 4
        c.batch_size = 8
        c.checkpoint.every = 2
        c.optimizer.warmup_steps = 1
    return c
