"""SALMONN (Tang et al. 2023, arXiv:2310.13289): Whisper and BEATs, Q-Former, Vicuna-13B.

COMMAND: python -m alm_jax.prepare librispeech, and so on for each dataset below, then
         python -m alm_jax.train --config configs/generative/salmonn.py --workdir runs/salmonn
         python -m alm_jax.compile --config configs/generative/salmonn.py  # the plan
ARGUMENTS: :smoke (the same code path in a minute, on the packaged recordings), seed=N,
  whisper=DIR (openai/whisper-large-v2), beats=DIR (by alm_jax.interop.from_torch), vicuna=DIR
HARDWARE: a TPU v5p slice of 16 chips.
TIME and SCORE: not run on such hardware yet.

Three stages, all of the Q-Former and the low-rank terms: recognition and captions, instructions,
and a short tuning on long free answers instead of the paper's stories, which are not published, and
without its smaller weight of the low-rank terms. Of its speech the catalog has LibriSpeech, and
whatever manifests of SALMONN name; GigaSpeech, translations and speakers are not in it.
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(
        arg,
        smoke=False,
        seed=0,
        whisper='weights/whisper-large-v2',
        beats='weights/beats',
        vicuna='weights/vicuna-13b',
    )
    c = base()
    c.name = 'generative/salmonn'
    c.seed = arg.seed
    c.topology = 'v5p:2x2x4'
    c.batch_size = 64  # rows, of at most seven clips each
    c.compute_dtype = 'bfloat16'
    c.mesh = {'data': 1, 'fsdp': -1, 'tensor': 1, 'sequence': 1, 'dcn': -1}
    c.remat = 'dots'
    c.log_every = 20

    c.data.text.dialogue = 'salmonn'
    c.data.text.instruction = True
    c.data.pack = True
    c.data.max_clips = 7
    c.data.workers = 16
    c.front_end.preset = 'salmonn'
    c.front_end.seconds = 30.0

    c.task.name = 'generative'
    c.task.token_chunk = 512
    c.model.family = 'two_head'
    c.model.audio = {
        'name': 'concatenated',
        'encoders': (
            {'name': 'whisper', 'variant': 'large_v2'},
            {'name': 'beats', 'variant': 'base'},
        ),
        'bins': (80, 128),
        'positions': 1500,
    }
    c.model.connector = {'name': 'window_q_former'}  # 88 vectors
    c.model.text = {'name': 'decoder', 'variant': 'vicuna_13b', 'lora': {'rank': 8, 'alpha': 32.0}}
    c.text.tokenizer = arg.vicuna
    c.text.lengths = (1024,)
    c.init_from = {
        'audio/encoders_0': arg.whisper,
        'audio/encoders_1': arg.beats,
        'text': arg.vicuna,
    }
    c.freeze = (r'^audio/encoders', r'^text/(?!.*lora_)')

    c.optimizer.weight_decay = 0.05
    c.optimizer.b2 = 0.999
    c.optimizer.warmup_steps = 3000
    c.checkpoint.every = 1000
    pretrain = (
        {'name': 'librispeech/all:train', 'weight': 0.6},
        {'name': 'wavcaps:train', 'weight': 0.3},
        {'name': 'audiocaps/1.0:train', 'weight': 0.07},
        {'name': 'clotho:train', 'weight': 0.03},
    )
    instruct = (
        {'name': 'salmonn:train', 'weight': 0.5},
        {'name': 'librispeech/all:train', 'weight': 0.2},
        {'name': 'audiocaps/1.0:train', 'weight': 0.05},
        {'name': 'clotho:train', 'weight': 0.05},
        {'name': 'clotho_aqa/all:train', 'weight': 0.05},
        {'name': 'wavcaps:train', 'weight': 0.1},
        {'name': 'lp_musiccaps/mtt:train', 'weight': 0.05},
    )
    activate = ({'name': 'compa_r:train'},)
    evals = {
        'librispeech': {
            'evaluator': 'captioning',
            'data': 'librispeech/all:test',
            'text': 'transcript',
            'max_tokens': 128,
        },
        'audiocaps': {'evaluator': 'captioning', 'data': 'audiocaps/1.0:test'},
        'clotho_aqa': {'evaluator': 'question_answering', 'data': 'clotho_aqa/unanimous:test'},
    }
    steps = (60_000, 30_000, 200)
    if arg.smoke:
        packaged = 'packaged_sounds/tiny'
        steps = (2, 2, 2)
        c.batch_size = 4
        c.log_every = 1
        c.data.max_clips = 2
        c.data.workers = 1
        c.front_end.seconds = 2.56
        c.model.audio.encoders = (
            {'name': 'whisper', 'variant': 'mu'},
            {'name': 'beats', 'variant': 'mu'},
        )
        c.model.audio.positions = 128
        c.model.connector = {
            'name': 'window_q_former',
            'width': 32,
            'depth': 1,
            'heads': 2,
            'mlp_width': 64,
        }
        c.model.text = {'name': 'decoder', 'variant': 'mu', 'lora': {'rank': 2}}
        c.text.tokenizer = 'packaged:smollm2'
        c.text.lengths = (160,)
        c.task.token_chunk = 64
        c.init_from = {}
        c.freeze = (r'^audio/encoders',)
        c.optimizer.warmup_steps = 1
        c.checkpoint.every = 2
        pretrain = instruct = activate = (
            {'name': f'{packaged}:train', 'where': {'kind': ['sound']}},
        )
        evals = {
            'captioning': {
                'evaluator': 'captioning',
                'data': f'{packaged}:validation',
                'limit': 4,
                'max_tokens': 4,
                'conditions': ('shuffled',),
            },
        }

    c.steps = sum(steps)
    c.stages = (
        {
            'name': 'pretrain',
            'steps': steps[0],
            'data.train': pretrain,
            'optimizer.learning_rate': 3e-5,
        },
        {
            'name': 'instructions',
            'steps': steps[1],
            'data.train': instruct,
            'optimizer.learning_rate': 3e-5,
        },
        {
            'name': 'activation',
            'steps': steps[2],
            'data.train': activate,
            'optimizer.learning_rate': 1e-5,
            'optimizer.warmup_steps': 1,
            'evals': evals,
        },
    )
    return c
