"""A few steps of a small two-tower model; run as a program, on a forced number of devices.

``python small_run.py OUT.npz`` writes the losses: 'whole' and, on several devices, 'dropped', where
the last quarter of the rows sees the negatives of its own quarter alone.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax.objectives import contrastive
from alm_jax.tasks import build_task
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import optimizer as optimizer_lib
from alm_jax.training import sharding, state, step

ROWS, STEPS, SAMPLES, TOKENS = 16, 20, 8000, 16


def make_config() -> ConfigDict:
    """Peak learning rate from step 0, float32, dropout and SpecAugment on."""
    config = config_lib.base()
    config.steps, config.batch_size = STEPS, ROWS
    config.front_end.preset, config.front_end.seconds = 'whisper_80', SAMPLES / 16000
    config.augment.gain_db = 6.0
    config.augment.shift_seconds = 0.05
    config.augment.time_masks = config.augment.freq_masks = 2
    config.model.audio = {'name': 'spectrogram_transformer', 'variant': 'mu', 'dropout': 0.1}
    config.model.text = {'name': 'bert', 'variant': 'mu', 'dropout': 0.1}
    config.model.embed_dim, config.model.dropout = 32, 0.1
    config.task.objective = 'multi_positive'
    config.optimizer.schedule, config.optimizer.learning_rate = 'constant', 1e-3
    return config


def batch(data_step: int) -> dict[str, np.ndarray]:
    """Decaying tones named by two words each; some captions and recordings repeat."""
    rng = np.random.default_rng(data_step)
    pitch, decay = rng.integers(0, 6, ROWS), rng.integers(0, 3, ROWS)
    seconds = np.arange(SAMPLES) / 16000
    tone = np.sin(2 * np.pi * 200 * 1.5 ** pitch[:, None] * seconds)
    x = tone * np.exp(-3 * decay[:, None] * seconds) + 0.01 * rng.normal(size=tone.shape)
    num_samples = rng.integers(SAMPLES // 2, SAMPLES + 1, ROWS)
    x[np.arange(SAMPLES) >= num_samples[:, None]] = 0
    token_ids = np.zeros((ROWS, TOKENS), np.int32)
    token_ids[:, :4] = np.stack([0 * pitch + 101, 1000 + pitch, 2000 + decay, 0 * pitch + 102], 1)
    recording = np.arange(ROWS)
    recording[3] = recording[1]
    return {
        'pcm': (x * 16000).astype(np.int16),
        'num_samples': num_samples.astype(np.int32),
        'token_ids': token_ids,
        'token_mask': token_ids > 0,
        'audio_group': recording.astype(np.int32),
        'text_group': (10 * pitch + decay).astype(np.int32),
    }


def losses(objective: Callable | None, variants: int) -> list[np.ndarray]:
    """float32 [STEPS] of each variant, over all devices there are; one compilation for all.

    Args:
      objective: (own, out, batch) -> scalar instead of the task's own, which it is given.
      variants: batches carry 'variant', an int32 [ROWS] of the number of the variant.
    """
    config = make_config()
    mesh = sharding.make_mesh(config.mesh)
    task = build_task(config, mesh=mesh)
    if objective is not None:
        task._objective = functools.partial(objective, task._objective)
    rng, spec = jax.random.key(config.seed), batch(0)
    abstract, _ = jax.eval_shape(lambda: task.init(rng, spec))
    optimizer = optimizer_lib.make_optimizer(config, abstract)
    replicated = sharding.replicated(mesh)
    fresh = jax.jit(
        lambda rng: state.create(*task.init(rng, spec), optimizer), out_shardings=replicated
    )
    train_step = step.make_train_step(task, optimizer, seed=config.seed, mesh=mesh)
    found = []
    for variant in range(variants):
        run = fresh(rng)
        found.append([])
        for data_step in range(config.steps):
            arrays = batch(data_step) | {'variant': np.full(ROWS, variant, np.int32)}
            run, metrics = train_step(run, sharding.put_batch(arrays, mesh))
            found[-1].append(metrics['loss'])
    return [np.asarray(jax.device_get(one)) for one in found]


def drop_negatives_in_variant_1(own, out, batch) -> jax.Array:
    """``own``; in variant 1 the last quarter of the rows and the rest do not see each other."""
    last = np.arange(ROWS) >= 3 * ROWS // 4
    logits = out['logit_scale'] * out['audio_embedding'] @ out['text_embedding'].T
    logits = jnp.where(last[:, None] != last, -1e9, logits)
    positive = contrastive.positives(batch['audio_group'], batch['text_group'])
    positive &= last[:, None] == last
    dropped = contrastive._soft_cross_entropy(logits, positive)
    return jnp.where(batch['variant'][0] == 1, dropped, own(out, batch))


def tokenizer() -> Tokenizer:
    """Words to ids; lengths 8 and 16."""
    words = ['[PAD]', '[UNK]', 'a', 'dog', 'barks', 'twice', 'near', 'the', 'old', 'bridge']
    words += ['while', 'rain', 'falls']
    model = tokenizers.models.WordLevel(
        {word: i for i, word in enumerate(words)}, unk_token='[UNK]'
    )
    built = tokenizers.Tokenizer(model)
    built.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return Tokenizer(built.to_str(), lengths=(8, TOKENS))


def clips(count: int) -> list[tuple[np.ndarray, int]]:
    """Decaying tones of many lengths, from one tenth of a window to three windows."""
    found = []
    for i in range(count):
        samples = (800, 3000, 8000, 11000, 13000, 24000)[i % 6]
        seconds = np.arange(samples) / 16000
        x = np.sin(2 * np.pi * 150 * 1.13**i * seconds) * np.exp(-2 * seconds)
        found.append(((x * 20000).astype(np.int16), 16000))
    return found


def embeddings(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the same clips over the mesh of all devices and on one device."""
    config, mesh = make_config(), sharding.make_mesh({'data': -1})
    task = build_task(config, tokenizer=tokenizer(), mesh=mesh)
    params, extra = jax.jit(lambda: task.init(jax.random.key(0), batch(0)))()
    many = task.predictors
    one = dataclasses.replace(many, mesh=None)
    return tuple(each.embed_audio(params, extra, clips(count)) for each in (many, one))


def main(out: str) -> None:
    if jax.device_count() == 1:
        np.savez(out, devices=1, whole=losses(None, 1)[0])
    else:
        whole, dropped = losses(drop_negatives_in_variant_1, 2)
        many, one = embeddings(100)
        np.savez(out, devices=jax.device_count(), whole=whole, dropped=dropped, many=many, one=one)


if __name__ == '__main__':
    main(sys.argv[1])
