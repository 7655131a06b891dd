"""HTS-AT and RoBERTa, the towers of LAION-CLAP, at a batch of 32,768 on a v5e pod.

COMMAND: python -m alm_jax.prepare wavcaps --manual_dir DIR, and so on for each dataset below, then
         python -m alm_jax.train --config configs/clap/htsat_roberta_large_batch.py \
             --workdir runs/htsat_roberta
         python -m alm_jax.compile --config configs/clap/htsat_roberta_large_batch.py  # the plan
ARGUMENTS: :smoke (the same code path in a minute, on the packaged recordings), seed=N,
  roberta=DIR (FacebookAI/roberta-base from Hugging Face: weights and tokenizer)
HARDWARE: TPU v5e, 256 chips, topology 16x16.
TIME and SCORE: not run on such hardware yet. By the compiler and the published figures of the chip
  a step takes 7.8 of 15.75 GiB and at least 472 ms (MFU 18 %), bound by the memory's bandwidth: the
  early stages are 128 and 256 wide, and scores of windows of 64 positions fill half a tile.
  Wu et al. 2022 (arXiv:2211.06687, table 3), batch 2,304 on other data, report R@1 of AudioCaps
  32.7 (text to audio).
"""

from alm_jax.config import base, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, smoke=False, seed=0, roberta='weights/roberta-base')
    c = base()
    c.name = 'clap/htsat_roberta_large_batch'
    c.seed = arg.seed
    c.topology = 'v5e:16x16'
    c.steps = 10_000
    c.batch_size = 32_768
    c.compute_dtype = 'bfloat16'
    c.mesh = {'data': -1, 'fsdp': 16, 'tensor': 1, 'sequence': 1, 'dcn': -1}
    c.remat = 'block'
    c.log_every = 20

    # 'wavcaps:train' is free of what these sets are evaluated on.
    c.data.train = (
        {'name': 'wavcaps:train', 'weight': 1.0},
        {'name': 'laion_audio_630k/freesound_no_overlap:train', 'weight': 0.6},
        {'name': 'audiocaps/1.0:train', 'weight': 0.2},
        {'name': 'clotho:train', 'weight': 0.05},
    )
    c.data.workers = 16
    c.front_end.preset = 'clap'
    c.front_end.seconds = 10.0
    c.augment.time_masks = 2
    c.augment.time_mask_frames = 64
    c.augment.freq_masks = 2
    c.augment.freq_mask_bins = 8

    c.text.tokenizer = arg.roberta
    c.text.lengths = (77,)  # as in LAION-CLAP
    c.model.audio = {'name': 'htsat', 'variant': 'base'}
    c.model.text = {'name': 'bert', 'variant': 'roberta'}
    c.model.embed_dim = 512
    c.model.projection = 'mlp'
    c.init_from = {'text': arg.roberta}
    c.task.objective = 'infonce'
    c.task.form = 'ring'

    c.optimizer.learning_rate = 5e-4
    c.optimizer.warmup_steps = 500
    c.optimizer.weight_decay = 0.1
    c.optimizer.rates = ((r'^text/', 0.1),)
    c.checkpoint.every = 500

    c.evals = {
        'audiocaps': {
            'evaluator': 'retrieval',
            'every': 500,
            'data': 'audiocaps/1.0:test',
        },
        'clotho': {'evaluator': 'retrieval', 'every': 500, 'data': 'clotho:test'},
        'esc50': {'evaluator': 'zero_shot', 'every': 500, 'data': 'esc50:test'},
    }
    if arg.smoke:
        packaged = 'packaged_sounds/tiny'
        c.steps = 6
        c.batch_size = 16
        c.log_every = 2
        c.mesh = {'data': -1, 'fsdp': 1, 'tensor': 1, 'sequence': 1, 'dcn': -1}
        c.data.train = ({'name': f'{packaged}:train', 'where': {'kind': ['sound']}},)
        c.data.workers = 1
        c.front_end.seconds = 2.5
        c.model.audio = {'name': 'htsat', 'variant': 'mu'}
        c.model.text = {'name': 'bert', 'variant': 'mu_roberta'}
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
