"""A process of a job that ends as it is told, while the others wait in a collective or elsewhere.

python ending.py WHICH HOW WHERE [flags of alm_jax.distributed]
"""

import os
import sys
import time

from absl import flags

from alm_jax import config, distributed


def main(argv):
    which, how, where = argv[1:]
    with distributed.session():
        print('joined', flush=True)
        distributed.total(0)
        if flags.FLAGS.process_id != int(which):
            distributed.total(1) if where == 'collective' else time.sleep(600)
        if how == 'kill':
            os._exit(9)
        raise {'mistake': config.ConfigError, 'defect': ZeroDivisionError}[how]('This is wrong.')


if __name__ == '__main__':
    distributed.GRACE = 2.0
    distributed.define_flags()
    config.run(main)
    sys.exit(0)
