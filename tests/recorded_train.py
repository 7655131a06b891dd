"""alm_jax.train, with a line for each step that it takes: [step, data_step, hash of the audio].

python recorded_train.py FILE [flags of alm_jax.train]
"""

import hashlib
import json
import runpy
import sys

import numpy as np

from alm_jax.training import step

path, taken = sys.argv.pop(1), step.CompiledStep.__call__


def recorded(self, state, batch):
    content = hashlib.sha256(np.asarray(batch['pcm']).tobytes()).hexdigest()
    with open(path, 'a') as file:
        file.write(json.dumps([int(state.step), int(state.data_step), content]) + '\n')
    return taken(self, state, batch)


step.CompiledStep.__call__ = recorded
runpy.run_module('alm_jax.train', run_name='__main__')
