"""A spectrogram ViT-L and RoBERTa-large at a batch of 65,536 on 512 chips of v5p.

COMMAND: python -m alm_jax.prepare wavcaps --manual_dir DIR, and so on for each dataset below, then
         python -m alm_jax.train --config configs/clap/vit_l_v5p.py --workdir runs/vit_l
         python -m alm_jax.compile --config configs/clap/vit_l_v5p.py  # the plan
ARGUMENTS: :smoke (the same code path in a minute, on the packaged recordings), seed=N,
  roberta=DIR (FacebookAI/roberta-large from Hugging Face: weights and tokenizer)
HARDWARE: TPU v5p, 512 chips, topology 8x8x8, 128 pairs a chip.
TIME and SCORE: not run on such hardware yet. By the compiler and the published figures of the chip
  a step takes 13.0 of 95.7 GiB and at least 411 ms (MFU 76 %), bound by compute.
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, smoke=False, seed=0, roberta='weights/roberta-large')
    c = base()
    c.name = 'clap/vit_l_v5p'
    c.seed = arg.seed
    c.topology = 'v5p:8x8x8'
    c.steps = 20_000
    c.batch_size = 65_536
    c.compute_dtype = 'bfloat16'
    c.mesh = {'data': -1, 'fsdp': 8, 'tensor': 1, 'sequence': 1, 'dcn': -1}
    c.remat = 'block'
    c.log_every = 20

    # 'wavcaps:train' is free of what these sets are evaluated on.
    c.data.train = (
        {'name': 'wavcaps:train', 'weight': 1.0},
        {'name': 'auto_acd:train', 'weight': 1.0},
        {'name': 'laion_audio_630k/freesound_no_overlap:train', 'weight': 0.6},
        {'name': 'audiocaps/1.0:train', 'weight': 0.2},
        {'name': 'clotho:train', 'weight': 0.05},
    )
    c.data.workers = 16
    c.front_end.preset = 'fbank'
    c.front_end.seconds = 10.24  # 64 patches in time and 8 in frequency
    c.augment.gain_db = 6.0
    c.augment.time_masks = 2
    c.augment.time_mask_frames = 64
    c.augment.freq_masks = 2
    c.augment.freq_mask_bins = 16

    c.text.tokenizer = arg.roberta
    c.text.lengths = (64,)
    c.model.audio = {'name': 'spectrogram_transformer', 'variant': 'L'}
    c.model.text = {'name': 'bert', 'variant': 'roberta_large'}
    c.model.embed_dim = 1024
    c.init_from = {'text': arg.roberta}
    c.task.objective = 'sigmoid'
    c.task.form = 'ring'

    c.optimizer.learning_rate = 5e-4
    c.optimizer.warmup_steps = 1000
    c.optimizer.weight_decay = 0.1
    c.optimizer.rates = ((r'^text/', 0.1),)
    c.checkpoint.every = 500

    c.evals = {
        'audiocaps': {'evaluator': 'retrieval', 'every': 1000, 'data': 'audiocaps/1.0:test'},
        'clotho': {'evaluator': 'retrieval', 'every': 1000, 'data': 'clotho:test'},
        'esc50': {'evaluator': 'zero_shot', 'every': 1000, 'data': 'esc50:test'},
    }
    if arg.smoke:
        packaged = 'packaged_sounds/tiny'
        c.steps = 6
        c.batch_size = 16
        c.log_every = 2
        c.mesh.fsdp = 1
        c.data.train = ({'name': f'{packaged}:train', 'where': {'kind': ['sound']}},)
        c.data.workers = 1
        c.front_end.seconds = 2.56
        c.model.audio.variant = 'mu'
        c.model.text.variant = 'mu_roberta'
        c.text.tokenizer = 'packaged:minilm'
        c.init_from = {}
        c.task.chunk = 8
        c.optimizer.warmup_steps = 2
        c.checkpoint.every = 3
        c.evals = {
            'retrieval': {'evaluator': 'retrieval', 'data': f'{packaged}:validation'},
            'zero_shot': {'evaluator': 'zero_shot', 'data': f'{packaged}:validation'},
        }
    return c
