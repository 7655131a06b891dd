"""A full training step on the CPU against the same architecture in PyTorch, as a ratio.

COMMAND: python benchmarks/train_step.py --models text_tower,encoder_6x512,vit --rounds 7

One run times both libraries, each in a process of its own, taking turns: random weights, float32,
the same input, no dropout. A step is the gradient of the mean squared output in every parameter and
an AdamW update. Prints the median seconds of a step and the median and quartiles of the ratio
alm_jax / PyTorch of a round (below 1: we are faster), the CPU seconds of a step, and the peak
memory of each process beyond what its libraries take when imported.

Both have two threads: PyTorch by --threads, XLA by the cores that its process may run on. Threads
of OpenMP sleep while they wait, so that one library does not take the other's cores. XLA_FLAGS
that lower the optimisation level are dropped.
"""

import argparse
import dataclasses
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SEED = 0
LIBRARIES = {
    'alm_jax': ('optax', 'alm_jax.models.audio.spectrogram_transformer'),
    'PyTorch': ('torch', 'transformers.models.clap', 'transformers.models.vit'),
}
SIDES = tuple(LIBRARIES)


@dataclasses.dataclass(frozen=True)
class Model:
    """How both libraries build one model.

    Attributes:
      theirs: () -> (torch module, its forward: input -> output tensor).
      ours: () -> (Linen module, input -> its arguments, which of its outputs; None is all of it).
      shape: of the input, with its batch.
      vocabulary: of token ids in the input; None is an input of normal noise.
    """

    theirs: Callable[[], tuple[Any, Callable[[Any], Any]]]
    ours: Callable[[], tuple[Any, Callable[[Any], tuple], str | None]]
    shape: tuple[int, ...]
    vocabulary: int | None = None

    def input(self) -> np.ndarray:
        rng = np.random.default_rng(SEED)
        if self.vocabulary:
            return rng.integers(5, self.vocabulary, self.shape, dtype=np.int32)
        return rng.normal(0, 1, self.shape).astype(np.float32)


def text_tower() -> Model:
    """The text tower of LAION-CLAP: RoBERTa-base and its pooler, 8 captions of 77 tokens."""

    def theirs():
        import torch
        import transformers

        model = transformers.ClapTextModel(transformers.ClapTextConfig())

        def forward(ids):
            return model(input_ids=ids.long(), attention_mask=torch.ones_like(ids)).pooler_output

        return model, forward

    def ours():
        import jax.numpy as jnp

        from alm_jax.models.text.bert import Bert

        module = Bert('roberta')
        return module, lambda ids: (ids, jnp.ones(ids.shape, bool)), 'pooled'

    return Model(theirs, ours, (8, 77), 50_265)


def encoder(depth: int = 6, width: int = 512, heads: int = 8) -> Model:
    """Pre-norm blocks alone, 8 rows of 256 positions."""

    def theirs():
        import torch

        layer = torch.nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, 'gelu', batch_first=True, norm_first=True
        )
        model = torch.nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        return model, model

    def ours():
        from flax import linen as nn

        from alm_jax.models.layers.transformer import transformer_stack

        class Stack(nn.Module):
            @nn.compact
            def __call__(self, x_btd):
                return transformer_stack(depth, heads=heads, mlp_width=4 * width)(x_btd)[0]

        return Stack(), lambda x: (x,), None

    return Model(theirs, ours, (8, 256, width))


def vit() -> Model:
    """ViT-B without class token: 4 log-mels of 512 frames x 128 bins in 256 patches of 16 x 16."""

    def theirs():
        import transformers

        model = transformers.ViTModel(
            transformers.ViTConfig(image_size=(512, 128), num_channels=1), add_pooling_layer=False
        )
        return model, lambda mel: model(mel[:, None]).last_hidden_state

    def ours():
        from alm_jax.models.audio.spectrogram_transformer import SpectrogramTransformer

        module = SpectrogramTransformer(
            'B', positions='absolute', prefix=1, masked=False, pool='prefix'
        )
        return module, lambda mel: (mel,), 'tokens'

    return Model(theirs, ours, (4, 512, 128))


MODELS: dict[str, Callable[[], Model]] = {
    'text_tower': text_tower,
    'encoder_6x512': encoder,
    'vit': vit,
}


def run_theirs(model: Model, threads: int) -> tuple[Callable[[], None], int]:
    """(a step, the number of parameters)."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    module, forward = model.theirs()
    module.eval()  # no dropout; it has its gradients all the same
    inputs = torch.tensor(model.input())
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)

    def step():
        optimizer.zero_grad()
        forward(inputs).square().mean().backward()
        optimizer.step()

    return step, sum(p.numel() for p in module.parameters())


def run_ours(model: Model) -> tuple[Callable[[], None], int]:
    """(a step, the number of parameters)."""
    import jax
    import jax.numpy as jnp
    import optax

    module, arguments, name = model.ours()
    inputs = arguments(jnp.asarray(model.input()))
    params = jax.jit(module.init)(jax.random.key(SEED), *inputs)['params']
    optimizer = optax.adamw(1e-5)
    state = [params, jax.jit(optimizer.init)(params)]

    def loss(params):
        found = module.apply({'params': params}, *inputs)
        return jnp.mean(jnp.square(found if name is None else found[name]))

    def update(params, moments):
        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    updated = jax.jit(update, donate_argnums=(0, 1))

    def step():
        state[:] = updated(*state)
        jax.block_until_ready(state)

    return step, sum(x.size for x in jax.tree.leaves(params))


def resident() -> tuple[float, float]:
    """(now, at most since the start): megabytes of this process."""
    with open('/proc/self/status') as file:
        lines = dict(line.split(':', 1) for line in file)
    return tuple(int(lines[key].split()[0]) / 1e3 for key in ('VmRSS', 'VmHWM'))


def serve(side: str, name: str, threads: int) -> None:
    """The process of one library: a step for each line it reads, and its seconds and memory."""
    model = MODELS[name]()
    for library in LIBRARIES[side]:
        importlib.import_module(library)
    before, _ = resident()
    step, size = run_theirs(model, threads) if side == 'PyTorch' else run_ours(model)
    gc.collect()
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        step()
        found = {
            'seconds': time.perf_counter() - start,
            'cpu': time.process_time() - cpu,
            'megabytes': resident()[1] - before,
            'parameters': size,
        }
        print(json.dumps(found), flush=True)


class Side:
    """One library's process."""

    def __init__(self, side: str, name: str, threads: int):
        command = [sys.executable, __file__, '--serve', side, '--models', name]
        # Without this, idle threads of OpenMP spin while the other library works.
        environment = os.environ | {'OMP_WAIT_POLICY': 'passive', 'OMP_NUM_THREADS': str(threads)}
        kept = [f for f in os.environ.get('XLA_FLAGS', '').split() if 'optimization_level' not in f]
        environment['XLA_FLAGS'] = ' '.join(kept)
        self._process = subprocess.Popen(
            [*command, '--threads', str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads]),
        )

    def __call__(self) -> dict[str, float]:
        print(file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f'the process ended: {" ".join(self._process.args)}')
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(name: str, rounds: int, threads: int) -> None:
    sides = [Side(side, name, threads) for side in SIDES]
    sizes = [side() for side in sides]  # compiles, allocates
    if sizes[0]['parameters'] != sizes[1]['parameters']:
        print(f'{name}: parameters differ, {[int(s["parameters"]) for s in sizes]}')
    found = []
    for number in range(rounds):  # taking turns in being first
        order = (0, 1) if number % 2 else (1, 0)
        measured = {index: sides[index]() for index in order}
        found.append((measured[0], measured[1]))
    for side in sides:
        side.close()
    ratios = [ours['seconds'] / theirs['seconds'] for ours, theirs in found]
    low, middle, high = statistics.quantiles(ratios, n=4)
    seconds, cpu = (
        [statistics.median(row[side][key] for row in found) for side in (0, 1)]
        for key in ('seconds', 'cpu')
    )
    peak = [found[-1][side]['megabytes'] for side in (0, 1)]
    print(
        f'{name:14} {seconds[0]:8.3f} {seconds[1]:8.3f} {middle:6.2f} ({low:.2f}-{high:.2f}) | '
        f'{cpu[0]:8.2f} {cpu[1]:8.2f} | {peak[0]:8.0f} {peak[1]:8.0f} {peak[0] / peak[1]:6.2f}',
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--models', default=','.join(MODELS))
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--serve', choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    chosen = args.models.split(',')
    if unknown := sorted(set(chosen) - set(MODELS)):
        parser.error(f'no model {unknown[0]!r}; there are {", ".join(MODELS)}.')
    if args.rounds < 2:
        parser.error('--rounds must be at least 2, for a spread.')
    if args.serve:
        serve(args.serve, chosen[0], args.threads)
        return
    both = f'{SIDES[0]:>8} {SIDES[1]:>8}'
    print(f'{"":14} {"seconds":^36} | {"CPU seconds":^17} | {"peak MB":^24}')
    print(f'{"model":14} {both} {"ratio":>6} {"quartiles":11} | {both} | {both} {"ratio":>6}')
    for name in chosen:
        compare(name, args.rounds, args.threads)


if __name__ == '__main__':
    main()
