"""What the input side costs a training step: the loader against one batch used again and again.

COMMAND: python benchmarks/input_share.py --config configs/clap/tiny.py:tier=base
Prints clips/s of both, interleaved in one process, and their ratio; 1.0 means data is free.
"""

import statistics
import time

import jax
from absl import flags

from alm_jax import config as config_lib
from alm_jax import run_setup
from alm_jax.data import loader
from alm_jax.tasks import build_task
from alm_jax.training import optimizer, sharding, state, step

ROUNDS, STEPS = 5, 8


def main(argv):
    del argv
    config = flags.FLAGS.config
    mesh = sharding.make_mesh(config.mesh)
    tokenizer = run_setup.make_tokenizer(config, loader.open_mixture(config)[0], None)
    task = build_task(config, tokenizer=tokenizer, mesh=mesh)
    spec = loader.batch_spec(config, window_samples=task.window_samples)

    def init():
        return task.init(jax.random.key(0), spec)

    adamw = optimizer.make_optimizer(config, jax.eval_shape(init)[0])
    everywhere = sharding.replicated(mesh)
    current = jax.jit(lambda: state.create(*init(), adamw), out_shardings=everywhere)()
    train_step = step.make_train_step(task, adamw, seed=config.seed, mesh=mesh)
    batches = loader.batches(
        config,
        sampling_rate=task.sampling_rate,
        window_samples=task.window_samples,
        tokenizer=tokenizer,
    )
    fixed = sharding.put_batch(next(batches), mesh)
    current, numbers = train_step(current, fixed)  # compiles
    jax.block_until_ready(numbers)
    rates = {'loader': [], 'fixed batch': []}
    for _ in range(ROUNDS):
        for name, seen in rates.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                batch = fixed if name == 'fixed batch' else sharding.put_batch(next(batches), mesh)
                current, numbers = train_step(current, batch)
            jax.block_until_ready(numbers)
            seen.append(STEPS * config.batch_size / (time.perf_counter() - start))
    batches.close()
    for name, seen in rates.items():
        print(
            f'{name:12} {statistics.median(seen):7.1f} clips/s  (of {len(seen)}: '
            f'{min(seen):.1f} to {max(seen):.1f})'
        )
    ratio = statistics.median(a / b for a, b in zip(*rates.values()))
    print(f'ratio        {ratio:7.3f}')


if __name__ == '__main__':
    config_lib.define_config_flag()
    config_lib.run(main)
