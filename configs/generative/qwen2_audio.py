"""Qwen2-Audio (Chu et al. 2024, arXiv:2407.10759): Whisper large-v3 pooled by two, Qwen-7B.

COMMAND: python -m alm_jax.prepare librispeech, and so on for each dataset below, then
         python -m alm_jax.train --config configs/generative/qwen2_audio.py --workdir runs/qwen2
         python -m alm_jax.compile --config configs/generative/qwen2_audio.py  # the plan
ARGUMENTS: :smoke (the same code path in a minute, on the packaged recordings), seed=N,
  whisper=DIR (openai/whisper-large-v3), qwen=DIR (Qwen/Qwen-7B under the names of Qwen2, and a
  tokenizer whose chat template hears, such as that of Qwen/Qwen2-Audio-7B-Instruct)
HARDWARE: a TPU v5p slice of 64 chips.
TIME and SCORE: not run on such hardware yet. By the compiler and the published figures of the TPU
  a step of the second stage takes 39.1 of 95.7 GiB and at least 1.09 s (MFU 81 %, 1.05 times the
  model's FLOPs), bound by its products; the first stage is not compiled yet.

Two stages: the encoder learns all tasks before a frozen language model, then that follows
instructions behind a frozen encoder, as Qwen-Audio did (arXiv:2311.07919, section 3.1); the paper
of Qwen2-Audio does not say. Its third stage, preference optimisation, is not here. Of its data,
520,000 hours that are not published, the catalog has open sets alone.
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(
        arg, smoke=False, seed=0, whisper='weights/whisper-large-v3', qwen='weights/qwen-7b'
    )
    c = base()
    c.name = 'generative/qwen2_audio'
    c.seed = arg.seed
    c.topology = 'v5p:4x4x4'
    c.batch_size = 256  # rows, of at most three clips each
    c.compute_dtype = 'bfloat16'
    c.mesh = {'data': 1, 'fsdp': -1, 'tensor': 1, 'sequence': 1, 'dcn': -1}
    c.remat = 'dots'
    c.log_every = 20

    c.data.text.dialogue = 'chat'
    c.data.text.instruction = True
    c.data.pack = True
    c.data.max_clips = 3
    c.data.workers = 16
    c.front_end.preset = 'whisper_128'
    c.front_end.seconds = 30.0

    c.task.name = 'generative'
    c.task.token_chunk = 512
    c.model.family = 'two_head'
    c.model.audio = {
        'name': 'whisper',
        'variant': 'large_v3',
        'masked': True,
        'masked_stem': False,
        'pool': 2,  # 750 vectors of 30 s
        'remat': 'block',
    }
    c.model.connector = {'name': 'linear'}
    c.model.text = {'name': 'decoder', 'variant': 'qwen_7b'}
    c.text.tokenizer = arg.qwen
    c.text.lengths = (2048,)
    c.init_from = {'audio': arg.whisper, 'text': arg.qwen}

    c.optimizer.schedule = 'cosine'
    c.optimizer.weight_decay = 0.05
    c.checkpoint.every = 1000
    tasks = (
        {'name': 'librispeech/all:train', 'weight': 0.3},
        {'name': 'wavcaps:train', 'weight': 0.2},
        {'name': 'audioset/full:train', 'weight': 0.2},
        {'name': 'lp_musiccaps/msd:train', 'weight': 0.1},
        {'name': 'vggsound:train', 'weight': 0.05},
        {'name': 'nsynth:train', 'weight': 0.05},
        {'name': 'crema_d:train', 'weight': 0.02},
        {'name': 'audiocaps/1.0:train', 'weight': 0.04},
        {'name': 'clotho:train', 'weight': 0.02},
        {'name': 'clotho_aqa/all:train', 'weight': 0.02},
    )
    instructions = (
        {'name': 'openaqa/openasqa:train', 'weight': 0.6},
        {'name': 'compa_r:train', 'weight': 0.2},
        {'name': 'audiosetcaps/audioset_qa:train', 'weight': 0.1},
        {'name': 'librispeech/all:train', 'weight': 0.1},
    )
    evals = {
        'audiocaps': {'evaluator': 'captioning', 'data': 'audiocaps/1.0:test'},
        'librispeech': {
            'evaluator': 'captioning',
            'data': 'librispeech/all:test',
            'text': 'transcript',
            'max_tokens': 128,
        },
        'clotho_aqa': {'evaluator': 'question_answering', 'data': 'clotho_aqa/unanimous:test'},
    }
    steps = (40_000, 8_000)
    if arg.smoke:
        packaged = 'packaged_sounds/tiny'
        steps = (2, 2)
        c.batch_size = 4
        c.log_every = 1
        c.data.max_clips = 2
        c.data.workers = 1
        c.data.text.dialogue = 'plain'
        c.front_end.preset = 'whisper_80'
        c.front_end.seconds = 2.56
        c.model.audio.variant = 'mu'
        c.model.text = {'name': 'decoder', 'variant': 'mu'}
        c.text.tokenizer = 'packaged:smollm2'
        c.text.lengths = (224,)
        c.task.token_chunk = 64
        c.init_from = {}
        c.checkpoint.every = 2
        tasks = instructions = ({'name': f'{packaged}:train', 'where': {'kind': ['sound']}},)
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
    pretrain, instruct = steps
    c.stages = (
        {
            'name': 'pretrain',
            'steps': pretrain,
            'data.train': tasks,
            'freeze': (r'^text/', r'position_embedding'),
            'optimizer.learning_rate': 5e-5,
            'optimizer.warmup_steps': pretrain // 20,
        },
        {
            'name': 'instructions',
            'steps': instruct,
            'data.train': instructions,
            'freeze': (r'^audio/',),
            'optimizer.learning_rate': 1e-5,
            'optimizer.warmup_steps': instruct // 10,
            'evals': evals,
        },
    )
    return c
