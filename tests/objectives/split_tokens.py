"""The token cross-entropy on meshes of 8 forced devices against whole logits; run as a program.

Prints for each case the largest relative error, and what loops send that is as wide as the head.
"""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from test_generative import FORMS, dense, inputs

from alm_jax.objectives.generative import token_cross_entropy

AXES = ('data', 'fsdp', 'tensor', 'sequence')
ROWS = ('data', 'fsdp')
# name -> (mesh, axes of rows and positions or None for the partitioner's own choice, of the head)
CASES = {
    'rows': ((4, 2, 1, 1), (ROWS,), ()),
    'head over features': ((2, 4, 1, 1), (ROWS,), (None, 'fsdp')),
    'head over tokens': ((2, 2, 2, 1), (ROWS,), ('tensor', 'fsdp')),
    'positions too': ((2, 1, 2, 2), (ROWS, ('sequence',)), ('tensor', None)),
    'partitioner': ((2, 2, 2, 1), None, ('tensor', 'fsdp')),
}
B, T, D, VOCABULARY, CHUNK = 8, 12, 8, 32, 2


def both(function, targets, weights):
    def mean(tokens, head):
        total, count, _ = function(tokens, head, targets, weights)
        return 3 * jnp.sum(total) / jnp.sum(count)

    return jax.value_and_grad(mean, argnums=(0, 1))


def main():
    tokens, head, targets, weights = inputs(B, T, D, VOCABULARY)
    options = FORMS['softcap']
    expected = both(functools.partial(dense, **options), targets, weights)(tokens, head)
    for name, (shape, split, of_head) in CASES.items():
        mesh = Mesh(np.array(jax.devices()).reshape(shape), AXES)

        def put(x, *spec, mesh=mesh):
            return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

        rows = split or (ROWS,)
        placed = [put(x, *rows) for x in (targets, weights)]
        form = {**options, 'chunk': CHUNK, 'mesh': mesh if split else None, 'split': split or ()}
        function = jax.jit(both(functools.partial(token_cross_entropy, **form), *placed))
        arguments = put(tokens, *rows), put(head, *of_head)
        found = function(*arguments)
        errors = [
            np.linalg.norm(ours - other) / np.linalg.norm(other)
            for ours, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected))
        ]
        program = function.lower(*arguments).compile().as_text()
        sent = [line for line in program.splitlines() if re.search(r' all-(reduce|gather)\(', line)]
        of_head = [x for x in sent if re.search(rf'f32\[\d+,{D}\]', x.split(' all-')[0])]
        in_loops = [line for line in of_head if '/while/' in line]
        print(json.dumps({'case': name, 'error': float(max(errors)), 'in_loops': in_loops}))


if __name__ == '__main__':
    main()
