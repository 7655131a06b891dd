"""Audio Flamingo 2 (Ghosh et al. 2025, arXiv:2503.03983): AF-CLAP's HTS-AT, seen by Qwen2.5-3B.

COMMAND: python -m alm_jax.prepare audio_flamingo2 --manual_dir DIR, and so on for each dataset
         below, then
         python -m alm_jax.train --config configs/generative/audio_flamingo.py --workdir runs/af2
         python -m alm_jax.compile --config configs/generative/audio_flamingo.py  # the plan
ARGUMENTS: :smoke (the same code path in a minute, on the packaged recordings), seed=N,
  clap=DIR (AF-CLAP's HTS-AT under our names, or a run of two towers with it), qwen=DIR
  (Qwen/Qwen2.5-3B)
HARDWARE: a TPU v5p slice of 64 chips.
TIME and SCORE: not run on such hardware yet.

Three stages, as in section 4 of the paper: short clips before frozen models, then longer ones with
the encoder trained too, then up to five minutes. A row holds several dialogues, whose clips are
windows of 10 s with 64 vectors each; these are the last layer's, where the paper has those before
it. Of its data the catalog has what the manifests of its repository name and the sets below, but
none of AudioSkills beyond the manifests.
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, smoke=False, seed=0, clap='weights/af-clap', qwen='weights/qwen2.5-3b')
    c = base()
    c.name = 'generative/audio_flamingo'
    c.seed = arg.seed
    c.topology = 'v5p:4x4x4'
    c.batch_size = 1024  # rows
    c.compute_dtype = 'bfloat16'
    c.mesh = {'data': 1, 'fsdp': -1, 'tensor': 1, 'sequence': 1, 'dcn': -1}
    c.remat = 'dots'
    c.log_every = 20

    c.data.text.dialogue = 'chat'
    c.data.text.instruction = True
    c.data.pack = True
    c.data.workers = 16
    c.front_end.preset = 'af_clap'
    c.front_end.seconds = 10.0

    c.task.name = 'generative'
    c.task.token_chunk = 128
    c.model.family = 'two_head'
    c.model.audio = {'name': 'htsat', 'variant': 'large', 'dense': True}
    c.model.connector = {'name': 'gated_cross_attention'}  # before every layer
    c.model.text = {'name': 'decoder', 'variant': 'qwen2_5_3b'}
    c.text.tokenizer = arg.qwen
    c.text.lengths = (512,)
    c.init_from = {'audio': arg.clap, 'text': arg.qwen}
    c.freeze = (r'^text/',)

    c.optimizer.schedule = 'constant'
    c.optimizer.weight_decay = 0.1
    c.checkpoint.every = 1000
    pairs = (
        {'name': 'audio_flamingo2:train', 'weight': 0.4},
        {'name': 'openaqa/openaqa:train', 'weight': 0.2},
        {'name': 'wavcaps:train', 'weight': 0.1},
        {'name': 'laion_audio_630k/freesound:train', 'weight': 0.1},
        {'name': 'compa_r:train', 'weight': 0.05},
        {'name': 'sounddescs:train', 'weight': 0.05},
        {'name': 'lp_musiccaps/mtt:train', 'weight': 0.05},
        {'name': 'nsynth:train', 'weight': 0.05},
    )
    tuned = (
        {'name': 'audio_flamingo2:train', 'weight': 0.4},
        {'name': 'openaqa/openaqa:train', 'weight': 0.2},
        {'name': 'compa_r:train', 'weight': 0.1},
        {'name': 'clotho_aqa/all:train', 'weight': 0.1},
        {'name': 'audiocaps/1.0:train', 'weight': 0.1},
        {'name': 'clotho:train', 'weight': 0.1},
    )
    long = ({'name': 'conversations:train', 'where': {'duration': {'min': 30.0}}},)
    evals = {
        'audiocaps': {'evaluator': 'captioning', 'data': 'audiocaps/1.0:test'},
        'clotho': {'evaluator': 'captioning', 'data': 'clotho:test'},
        'clotho_aqa': {'evaluator': 'question_answering', 'data': 'clotho_aqa/unanimous:test'},
    }
    steps, windows = (30_000, 10_000, 2_000), ((12, 3), (12, 12), (30, 30))
    if arg.smoke:
        packaged = 'packaged_sounds/tiny'
        steps, windows = (2, 2, 2), ((3, 1), (3, 2), (4, 4))
        c.batch_size = 4
        c.log_every = 1
        c.data.workers = 1
        c.data.text.dialogue = 'plain'
        c.front_end.seconds = 2.5
        c.model.audio = {'name': 'htsat', 'variant': 'mu', 'dense': True}
        c.model.connector = {
            'name': 'gated_cross_attention',
            'heads': 2,
            'head_dim': 16,
            'depth': 1,
            'memory_heads': 2,
            'memory_mlp_width': 32,
        }
        c.model.text = {'name': 'decoder', 'variant': 'mu'}
        c.text.tokenizer = 'packaged:smollm2'
        c.text.lengths = (128,)
        c.init_from = {}
        c.checkpoint.every = 2
        pairs = tuned = long = ({'name': f'{packaged}:train', 'where': {'kind': ['sound']}},)
        evals = {
            'captioning': {
                'evaluator': 'captioning',
                'data': f'{packaged}:validation',
                'limit': 4,
                'max_tokens': 4,
                'conditions': ('shuffled',),
            },
        }

    def windows_of(number):
        clips, of_one = windows[number]
        return {'data.max_clips': clips, 'data.max_windows': of_one}

    c.steps = sum(steps)
    c.stages = (
        {
            'name': 'pretrain',
            'steps': steps[0],
            'data.train': pairs,
            **windows_of(0),
            'freeze': (*c.freeze, r'^audio/'),
            'optimizer.learning_rate': 1e-4,
            'optimizer.warmup_steps': steps[0] // 16,
        },
        {
            'name': 'tune',
            'steps': steps[1],
            'data.train': tuned,
            **windows_of(1),
            'optimizer.learning_rate': 2e-5,
            'optimizer.warmup_steps': steps[1] // 16,
        },
        {
            'name': 'long',
            'steps': steps[2],
            'data.train': long,
            **windows_of(2),
            'freeze': (*c.freeze, r'^audio/'),
            'optimizer.learning_rate': 2e-5,
            'optimizer.warmup_steps': steps[2] // 16,
            'evals': evals,
        },
    )
    return c
