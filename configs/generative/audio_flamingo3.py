"""Audio Flamingo 3 (Goel et al. 2025, arXiv:2507.08128): AF-Whisper, an MLP, Qwen2.5-7B.

COMMAND: python -m alm_jax.prepare conversations --manual_dir DIR, and so on for each dataset below,
         then
         python -m alm_jax.train --config configs/generative/audio_flamingo3.py --workdir runs/af3
         python -m alm_jax.compile --config configs/generative/audio_flamingo3.py  # the plan
ARGUMENTS: :smoke (the same code path in a minute, on the packaged recordings), seed=N,
  whisper=DIR (AF-Whisper, or openai/whisper-large-v3), qwen=DIR (Qwen/Qwen2.5-7B-Instruct)
HARDWARE: a TPU v5p slice of 64 chips.
TIME and SCORE: not run on such hardware yet.

Five stages, as in section 5 of the paper: the connector, the encoder with it, all parameters on
clips of up to 2.5 minutes, low-rank terms on up to 10 minutes, and chats of several clips. All
conversations of its four data sets are one set in the catalog; clips of 30 s and more stand for
LongAudio-XL, dialogues of several clips are among the last stage's. Its speech beyond LibriSpeech
is not in the catalog.
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(
        arg, smoke=False, seed=0, whisper='weights/af-whisper', qwen='weights/qwen2.5-7b-instruct'
    )
    c = base()
    c.name = 'generative/audio_flamingo3'
    c.seed = arg.seed
    c.topology = 'v5p:4x4x4'
    c.compute_dtype = 'bfloat16'
    c.mesh = {'data': 1, 'fsdp': -1, 'tensor': 1, 'sequence': 1, 'dcn': -1}
    c.remat = 'dots'
    c.log_every = 20

    c.data.text.dialogue = 'audio_flamingo3'
    c.data.text.instruction = True
    c.data.pack = True
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
    c.model.connector = {'name': 'mlp'}
    c.model.text = {'name': 'decoder', 'variant': 'qwen2_5_7b', 'lora': {'rank': 16}}
    c.text.tokenizer = arg.qwen
    c.init_from = {'audio': arg.whisper, 'text': arg.qwen}

    c.optimizer.weight_decay = 0.0
    c.checkpoint.every = 1000
    pairs = (
        {'name': 'librispeech/all:train', 'weight': 0.3},
        {'name': 'wavcaps:train', 'weight': 0.3},
        {'name': 'lp_musiccaps/msd:train', 'weight': 0.2},
        {'name': 'audiosetcaps/audioset:train', 'weight': 0.1},
        {'name': 'audiocaps/1.0:train', 'weight': 0.06},
        {'name': 'clotho:train', 'weight': 0.04},
    )
    skills = (
        {'name': 'conversations:train', 'weight': 0.6},
        {'name': 'openaqa/openasqa:train', 'weight': 0.2},
        {'name': 'compa_r:train', 'weight': 0.1},
        {'name': 'librispeech/all:train', 'weight': 0.1},
    )
    long = ({'name': 'conversations:train', 'where': {'duration': {'min': 30.0}}},)
    chats = ({'name': 'conversations:train'},)
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
    steps = (5_000, 10_000, 20_000, 4_000, 1_000)
    # Rows, tokens of a row, its windows of 30 s, and those that one clip may have.
    short, middle, longest = (256, 2048, 3, 1), (128, 4096, 5, 5), (64, 16_384, 20, 20)
    if arg.smoke:
        packaged = 'packaged_sounds/tiny'
        steps = (2, 2, 2, 2, 2)
        short, middle, longest = (4, 160, 2, 1), (4, 224, 3, 2), (4, 320, 4, 4)
        c.log_every = 1
        c.data.workers = 1
        c.front_end.preset = 'whisper_80'
        c.front_end.seconds = 1.28
        c.model.audio.variant = 'mu'
        c.model.text = {'name': 'decoder', 'variant': 'mu', 'lora': {'rank': 2}}
        c.text.tokenizer = 'packaged:smollm2'
        c.task.token_chunk = 64
        c.init_from = {}
        c.checkpoint.every = 2
        pairs = skills = long = chats = (
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

    def stage(name, number, data, rate, shape, freeze, **others):
        rows, tokens, clips, windows = shape
        return {
            'name': name,
            'steps': steps[number],
            'data.train': data,
            'batch_size': rows,
            'text.lengths': (tokens,),
            'data.max_clips': clips,
            'data.max_windows': windows,
            'freeze': (*freeze, r'position_embedding'),
            'optimizer.learning_rate': rate,
            'optimizer.warmup_steps': max(1, steps[number] // 30),
            **others,
        }

    c.steps = sum(steps)
    adapters = (r'^audio/', r'^text/(?!.*lora_)')
    c.stages = (
        stage('align', 0, pairs, 1e-3, short, (r'^audio/', r'^text/')),
        stage('encoder', 1, pairs, 2e-5, short, (r'^text/',)),
        stage('skills', 2, skills, 2e-5, middle, (r'lora_',)),
        stage('long', 3, long, 2e-5, longest, adapters),
        stage('chat', 4, chats, 2e-5, longest, adapters, evals=evals),
    )
    return c
