"""LTU (Gong et al. 2023, arXiv:2305.10790) in its four stages: CAV-MAE's ViT-B, Vicuna-7B, LoRA.

COMMAND: python -m alm_jax.prepare audioset --manual_dir DIR, and so on for each dataset below, then
         python -m alm_jax.train --config configs/generative/ltu_stages.py --workdir runs/ltu
         python -m alm_jax.compile --config configs/generative/ltu_stages.py  # the plan
ARGUMENTS: :smoke (the same code path in a minute, on the packaged recordings), seed=N,
  cav_mae=DIR (CAV-MAE fine-tuned on AudioSet, by alm_jax.interop.from_torch), vicuna=DIR
HARDWARE: eight H100 SXM of 80 GB.
TIME and SCORE: not run on such hardware yet.

Classification by the connector alone, then with the encoder and the low-rank terms, then closed
questions, then OpenAQA's open ones: rates and numbers of updates as in the paper's scripts, with
about their 256 dialogues a batch. Its own norm before the connector is not here, the loss is of
answers alone, and what it asks in stages 1 to 3 is asked of the labels by our own templates.
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, smoke=False, seed=0, cav_mae='weights/cav_mae', vicuna='weights/vicuna-7b')
    c = base()
    c.name = 'generative/ltu_stages'
    c.seed = arg.seed
    c.topology = 'h100:8'
    c.batch_size = 32  # rows, of at most eight clips each
    c.compute_dtype = 'bfloat16'
    c.mesh = {'data': 1, 'fsdp': -1, 'tensor': 1, 'sequence': 1, 'dcn': -1}
    c.remat = 'dots'
    c.log_every = 20

    c.data.text.dialogue = 'ltu'
    c.data.text.instruction = True
    c.data.pack = True
    c.data.max_clips = 8
    c.data.workers = 16
    c.front_end.preset = 'fbank'
    c.front_end.seconds = 10.24

    c.task.name = 'generative'
    c.task.token_chunk = 512
    c.model.family = 'two_head'
    c.model.audio = {
        'name': 'spectrogram_transformer',
        'variant': 'B',
        # CAV-MAE's mean and deviation, of what 'fbank' has normalised by AudioSet's.
        'input_mean': -0.08900,
        'input_std': 0.49080,
        'positions': 'absolute',
        'grid': (64, 8),
        'modality': True,
        'masked': False,
        'partial': False,
    }
    c.model.connector = {'name': 'pool'}  # 32 vectors
    c.model.text = {'name': 'decoder', 'variant': 'vicuna_7b', 'lora': {'rank': 8, 'alpha': 16.0}}
    c.text.tokenizer = arg.vicuna
    c.text.lengths = (1024,)
    c.init_from = {'audio': arg.cav_mae, 'text': arg.vicuna}
    c.freeze = (r'^text/(?!.*lora_)',)

    c.optimizer.schedule = 'linear'
    c.optimizer.warmup_steps = 100
    c.checkpoint.every = 1000
    labels = (
        {'name': 'audioset/balanced:train', 'weight': 0.1},
        {'name': 'audioset/full:train', 'weight': 0.4},
        {'name': 'vggsound:train', 'weight': 0.2},
        {'name': 'fsd50k/labels:train', 'weight': 0.1},
        {'name': 'audiocaps/1.0:train', 'weight': 0.1},
        {'name': 'clotho:train', 'weight': 0.1},
    )
    closed = (*labels, {'name': 'audioset/strong:train', 'weight': 0.5})
    opened = ({'name': 'openaqa/openaqa:train'},)
    evals = {
        'audiocaps': {'evaluator': 'captioning', 'data': 'audiocaps/1.0:test'},
        'clotho': {'evaluator': 'captioning', 'data': 'clotho:test'},
        'esc50': {'evaluator': 'question_answering', 'data': 'esc50:test', 'choices': 4},
    }
    steps = (9_400, 9_400, 7_400, 22_000)
    if arg.smoke:
        packaged = 'packaged_sounds/tiny'
        steps = (2, 2, 2, 2)
        c.batch_size = 4
        c.log_every = 1
        c.data.max_clips = 2
        c.data.workers = 1
        c.front_end.seconds = 2.56
        c.model.audio.variant = 'mu'
        c.model.audio.grid = (16, 8)
        c.model.text = {'name': 'decoder', 'variant': 'mu', 'lora': {'rank': 2}}
        c.text.tokenizer = 'packaged:smollm2'
        c.text.lengths = (192,)
        c.task.token_chunk = 64
        c.init_from = {}
        c.optimizer.warmup_steps = 1
        c.checkpoint.every = 2
        labels = closed = opened = ({'name': f'{packaged}:train', 'where': {'kind': ['sound']}},)
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
            'name': 'connector',
            'steps': steps[0],
            'data.train': labels,
            'freeze': (r'^audio/', r'^text/'),
            'optimizer.learning_rate': 1e-3,
        },
        {
            'name': 'classification',
            'steps': steps[1],
            'data.train': labels,
            'optimizer.learning_rate': 1e-4,
        },
        {
            'name': 'closed',
            'steps': steps[2],
            'data.train': closed,
            'optimizer.learning_rate': 1e-4,
        },
        {
            'name': 'open',
            'steps': steps[3],
            'data.train': opened,
            'optimizer.learning_rate': 1e-4,
            'evals': evals,
        },
    )
    return c
