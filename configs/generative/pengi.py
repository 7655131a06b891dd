"""Pengi (Deshmukh et al. 2023, arXiv:2305.11834): HTS-AT, a mapper of 40 vectors, frozen GPT-2.

COMMAND: python -m alm_jax.prepare wavcaps --manual_dir DIR, and so on for each dataset below, then
         python -m alm_jax.train --config configs/generative/pengi.py --workdir runs/pengi
         python -m alm_jax.compile --config configs/generative/pengi.py  # the plan
ARGUMENTS: :smoke (the same code path in a minute, on the packaged recordings), seed=N,
  clap=DIR (the HTS-AT of MS-CLAP 2023, by alm_jax.interop.from_torch), gpt2=DIR (openai-community)
HARDWARE: eight H100 SXM of 80 GB.
TIME and SCORE: not run on such hardware yet.

What differs from the paper: an instruction is tokens of GPT-2, not 40 more vectors from CLIP's text
encoder; and of its 3.4M pairs this has not MOSI, MELD, CochlScene, DCASE17, Clotho's rephrasings.
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, smoke=False, seed=0, clap='weights/msclap_2023', gpt2='weights/gpt2')
    c = base()
    c.name = 'generative/pengi'
    c.seed = arg.seed
    c.topology = 'h100:8'
    c.steps = 60_000
    c.batch_size = 256  # rows, of at most twelve clips each
    c.compute_dtype = 'bfloat16'
    c.mesh = {'data': 1, 'fsdp': -1, 'tensor': 1, 'sequence': 1, 'dcn': -1}
    c.remat = 'block'
    c.log_every = 20

    c.data.train = (
        {'name': 'wavcaps:train', 'weight': 1.0},
        {'name': 'audioset/full:train', 'weight': 1.0},
        {'name': 'fsd50k/labels:train', 'weight': 0.2},
        {'name': 'audiocaps/1.0:train', 'weight': 0.2},
        {'name': 'clotho:train', 'weight': 0.1},
        {'name': 'clotho_aqa/all:train', 'weight': 0.1},
        {'name': 'nsynth:train', 'weight': 0.2},
        {'name': 'crema_d:train', 'weight': 0.05},
        {'name': 'ravdess/all:train', 'weight': 0.05},
        {'name': 'vggsound:train', 'weight': 0.2},
    )
    c.data.text.dialogue = 'plain'
    c.data.text.instruction = True
    c.data.pack = True
    c.data.max_clips = 12
    c.data.workers = 16
    c.front_end.preset = 'cnn14'  # also of MS-CLAP's HTS-AT
    c.front_end.seconds = 7.0

    c.task.name = 'generative'
    c.task.token_chunk = 256
    c.model.family = 'two_head'
    c.model.audio = {'name': 'htsat', 'variant': 'tiny'}
    c.model.connector = {'name': 'mapper', 'embed_dim': 1024}
    # What is frozen passes a gradient on at twice its forward pass; again would be half as much.
    c.model.text = {'name': 'decoder', 'variant': 'gpt2', 'remat': 'none'}
    c.text.tokenizer = arg.gpt2
    c.text.lengths = (1024,)
    c.init_from = {'audio': arg.clap, 'text': arg.gpt2}
    c.freeze = (r'^text/',)

    c.optimizer.learning_rate = 1e-4
    c.optimizer.schedule = 'linear'
    c.optimizer.warmup_steps = 2000
    c.checkpoint.every = 2000
    captioning = {'evaluator': 'captioning', 'every': 5000}
    c.evals = {
        'audiocaps': {**captioning, 'data': 'audiocaps/1.0:test'},
        'clotho': {**captioning, 'data': 'clotho:test'},
        'clotho_aqa': {
            'evaluator': 'question_answering',
            'every': 5000,
            'data': 'clotho_aqa/unanimous:test',
        },
    }
    if arg.smoke:
        packaged = 'packaged_sounds/tiny'
        c.steps = 4
        c.batch_size = 4
        c.log_every = 1
        c.data.train = ({'name': f'{packaged}:train', 'where': {'kind': ['sound']}},)
        c.data.max_clips = 3
        c.data.workers = 1
        c.front_end.seconds = 2.5
        c.model.audio = {'name': 'htsat', 'variant': 'mu'}
        c.model.connector = {'name': 'mapper', 'embed_dim': 32, 'length': 4, 'depth': 1}
        c.model.text = {'name': 'decoder', 'variant': 'mu'}
        c.text.tokenizer = 'packaged:smollm2'
        c.text.lengths = (160,)
        c.init_from = {}
        c.optimizer.warmup_steps = 1
        c.checkpoint.every = 2
        c.evals = {
            'captioning': {
                'evaluator': 'captioning',
                'data': f'{packaged}:validation',
                'limit': 4,
                'max_tokens': 4,
                'conditions': ('shuffled',),
            },
        }
    return c
