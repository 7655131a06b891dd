"""A small two-head model on packed rows in micro-batches and on meshes; run as a program.

``python generative_run.py OUT.npz`` on 4 forced devices writes for every case the loss, the metrics
and the gradient as one vector.
"""

import sys

import jax
import jax.flatten_util
import numpy as np
import small_run

from alm_jax import config as config_lib
from alm_jax.tasks import build_task
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.training import micro_batches, param_sharding, sharding

ROWS, CLIPS, TOKENS, VOCABULARY = 8, 2, 24, 60
# name -> (mesh, micro-batches)
CASES = {
    'whole': ({'data': 1}, 1),
    'four_parts': ({'data': 1}, 4),
    'four_devices': ({'data': 2, 'fsdp': 2}, 1),
    'two_parts': ({'data': 1, 'fsdp': 2, 'tensor': 2}, 2),
}


def make_config(plain=False, **text):
    """Dropout and augmentation on, unless ``plain``; attributes of the decoder beside."""
    config = small_run.make_config()
    dropout = 0.0 if plain else 0.1
    if plain:
        config.augment = config_lib.base().augment
    else:
        config.augment.noise_snr_db = (5.0, 20.0)
    config.model.family = 'two_head'
    config.model.audio.dropout = dropout
    size = {'width': 32, 'depth': 2, 'heads': 4, 'mlp_width': 48, 'vocabulary': VOCABULARY}
    config.model.text = {'name': 'decoder', 'variant': 'mu', 'dropout': dropout, **size, **text}
    config.task.name = 'generative'
    config.task.token_chunk = 5
    config.task.z_loss, config.task.label_smoothing = 0.01, 0.1
    config.data.max_clips = config.data.max_windows = CLIPS
    config.data.text.dialogue = 'plain'
    return config


def batch(task, seed=0):
    """Rows of one or two sequences, each with a clip, a prompt, an answer and some a second one."""
    rng = np.random.default_rng(seed)
    made = {
        'pcm': rng.integers(-9000, 9000, (ROWS, CLIPS, small_run.SAMPLES)).astype(np.int16),
        'num_samples': np.zeros((ROWS, CLIPS), np.int32),
        'token_ids': np.zeros((ROWS, TOKENS), np.int32),
        'segments': np.zeros((ROWS, TOKENS), np.int32),
        'loss_mask': np.zeros((ROWS, TOKENS), bool),
    }
    for row in range(ROWS):
        end = 0
        for clip in range(1 + row % 2):
            samples = int(rng.integers(small_run.SAMPLES // 2, small_run.SAMPLES + 1))
            vectors = task.vectors_of_frames[task.front_end.num_frames(samples)]
            counts = (vectors, *rng.integers(1, 3, 2), *(rng.integers(1, 3, 2) * (row % 3 > 0)))
            ids = rng.integers(1, VOCABULARY, sum(counts))
            ids[:vectors] = -1
            here = slice(end, end + len(ids))
            made['num_samples'][row, clip] = samples
            made['token_ids'][row, here] = ids
            made['segments'][row, here] = clip + 1
            made['loss_mask'][row, here] = np.repeat([0, 0, 1, 0, 1], counts)
            end += len(ids)
    return made


def unpacked(packed):
    """The same sequences, a row each; rows behind them are empty."""
    rows = {name: np.zeros((2 * ROWS, *x.shape[1:]), x.dtype) for name, x in packed.items()}
    for number in range(2 * ROWS):
        row, clip = divmod(number, 2)
        here = packed['segments'][row] == clip + 1
        for name in ('pcm', 'num_samples'):
            rows[name][number, 0] = packed[name][row, clip]
        for name in ('token_ids', 'loss_mask'):
            rows[name][number, : here.sum()] = packed[name][row, here]
        rows['segments'][number, : here.sum()] = 1
    return rows


def tokenizer():
    """Of bytes and a few words."""
    texts = ['what is it', 'a dog barks near the old bridge', 'rain falls', 'why ?', 'the first']
    return LanguageTokenizer.train(texts * 2)


def questions(count):
    """Clips of several lengths with questions of several lengths."""
    asked = ['what is it', 'why ?', 'what is it near the old bridge ? what falls ? ' * 2]
    return [
        ([clip], [(asked[number % 3], None)]) for number, clip in enumerate(small_run.clips(count))
    ]


def run(name):
    """{what: value} of a case."""
    axes, count = CASES[name]
    config = make_config()
    devices = int(np.prod(list(axes.values())))
    mesh = sharding.make_mesh(axes, jax.devices()[:devices])
    task = build_task(config, mesh=mesh)
    params, extra = jax.eval_shape(lambda: task.init(jax.random.key(0), None))
    specs = param_sharding.specs(params, mesh, config.sharding.params)
    params, extra = jax.jit(lambda: task.init(jax.random.key(0), None))()
    where = jax.tree_util.tree_map_with_path(
        lambda path, _: jax.sharding.NamedSharding(mesh, specs[tuple(key.key for key in path)]),
        params,
    )
    gradient = micro_batches.gradient_of(task, count)
    program = jax.jit(lambda params, rows, rng: gradient(lambda x: x, params, extra, rows, rng))
    rows = sharding.put_batch(batch(task), mesh)
    placed = jax.device_put(params, where)
    (loss, (metrics, _)), gradients = jax.device_get(program(placed, rows, jax.random.key(1)))
    vector = jax.flatten_util.ravel_pytree(gradients)[0]
    return {'loss': loss, 'gradient': vector, **metrics}


def answers(mesh):
    """Token ids, as text, of answers to more rows than a batch has."""
    words = tokenizer()
    words.decode = lambda ids: ' '.join(map(str, ids))
    config = make_config(plain=True, vocabulary=words.vocab_size, head='own')
    task = build_task(config, tokenizer=words, mesh=mesh)
    params, extra = jax.jit(lambda: task.init(jax.random.key(1), None))()
    return task.predictors.generate(params, extra, questions(40), max_tokens=6)


def main(out):
    found = {
        'answers_one': answers(None),
        'answers_four': answers(sharding.make_mesh({'data': 2, 'fsdp': 2})),
    }
    for name in CASES:
        found |= {f'{what}_{name}': value for what, value in run(name).items()}
    np.savez(out, **found)


if __name__ == '__main__':
    main(sys.argv[1])
