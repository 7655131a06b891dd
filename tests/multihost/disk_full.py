"""Of two processes, each of which writes its part, one cannot write: both do the same.

python disk_full.py WORKDIR WHICH ON_ERROR [flags of alm_jax.distributed]
"""

import resource
import sys

import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding, PartitionSpec

from alm_jax import config, distributed
from alm_jax.training.checkpoint import Checkpointer
from alm_jax.training.state import TrainState

LIMIT = 200_000  # bytes of a file


def state(mesh, step):
    """Half a megabyte of each process that cannot be compressed."""
    content = np.random.default_rng(step).integers(0, 2**32, (2, 125_000), np.uint32)
    rows = NamedSharding(mesh, PartitionSpec('data'))
    params = jax.make_array_from_callback(content.shape, rows, lambda index: content[index])
    number = jax.device_put(np.int32(step), NamedSharding(mesh, PartitionSpec()))
    return TrainState(number, number, {'kernel': params}, {'mu': params}, {})


def main(argv):
    workdir, which, on_error = argv[1:]
    with distributed.session():
        mesh = jax.make_mesh((2,), ('data',))
        with Checkpointer(workdir, keep=5, on_error=on_error) as saver:
            saver.save(state(mesh, 1))
            saver.wait()
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            if flags.FLAGS.process_id == int(which):
                resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
            saver.save(state(mesh, 2))
            saver.wait()
            print('went on', flush=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            saver.save(state(mesh, 2))
            saver.wait()
            saver.save(state(mesh, 3))


if __name__ == '__main__':
    distributed.define_flags()
    config.run(main)
    sys.exit(0)
