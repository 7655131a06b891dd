"""Writes what a small model writes, its parameters on a mesh of all devices, to a .npz file."""

import sys

import jax
import numpy as np
import small
from jax.sharding import NamedSharding

from alm_jax.config import PARAM_RULES
from alm_jax.decoding.beam import Beams, search
from alm_jax.decoding.generate import Writer, padded
from alm_jax.decoding.sampling import Sampling
from alm_jax.training import param_sharding, sharding

PROMPTS = [[5, 6, 7, 8, 9], [12, 3], [20, 21, 22, 23], [30, 31, 32], [7]]  # two parts do not divide


def main(out: str) -> None:
    module, params = small.decoder()
    devices = jax.device_count()
    if devices > 1:
        mesh = sharding.make_mesh({'data': 1, 'fsdp': 2, 'tensor': 2})
        specs = param_sharding.specs(params, mesh, PARAM_RULES)

        def place(path, leaf):
            spec = specs[tuple(key.key for key in path)]
            return jax.device_put(leaf, NamedSharding(mesh, spec))

        params = jax.tree_util.tree_map_with_path(place, params)
    writer = Writer(module, params, stop_ids=(1, 2))
    ids, mask, _ = padded(PROMPTS)
    texts = writer.begin(ids, mask, max_tokens=12)
    texts.extend(12)
    sampling = Sampling(1.3, top_p=0.9, repetition_penalty=1.2, seed=(1, 2, 3, 4, 5))
    drawn = writer.begin(ids, mask, max_tokens=12, sampling=sampling)
    drawn.extend(12)
    key = jax.tree.leaves(texts._state['cache']['layers'])[0]
    np.savez(
        out,
        devices=devices,
        greedy=texts.tokens,
        drawn=drawn.tokens,
        beams=search(writer, ids, mask, beams=Beams(3), max_tokens=12).tokens,
        shard=key.sharding.shard_shape(key.shape)[-4:],
        whole=key.shape[-4:],
    )


if __name__ == '__main__':
    main(sys.argv[1])
