"""On four devices, and without jax."""

import subprocess
import sys

FOUR_DEVICES = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from alm_jax.audio import augment
from alm_jax.audio.log_mel_device import log_mel_device
from alm_jax.audio.presets import PRESETS

jax.config.update('jax_num_cpu_devices', 4)
mesh = jax.make_mesh((4,), ('data',))
rows = PartitionSpec('data')
x = np.random.default_rng(0).uniform(-1, 1, (8, 6000)).astype(np.float32)
n = np.full(8, 5000, np.int32)
x[:, 5000:] = 0
sharded = [jax.device_put(each, NamedSharding(mesh, rows)) for each in (x, n)]
assert len(sharded[0].sharding.device_set) == 4


def augmented(key, x, n):
    x = augment.gain(key, x, 6.0)
    x = augment.time_shift(key, x, n, 100)
    x = augment.add_noise(key, x, n, (0.0, 20.0))
    mel = x.reshape(8, 60, 100)
    return augment.spec_augment(key, mel, n // 100, time_masks=2, freq_masks=2)


key = jax.random.key(0)
one, four = (np.asarray(jax.jit(augmented)(key, *each)) for each in ((x, n), sharded))
np.testing.assert_allclose(four, one, rtol=1e-5, atol=1e-7)

for name in ('clap', 'fbank'):
    mel = lambda x: log_mel_device(x, PRESETS[name])
    sharded_mel = jax.shard_map(mel, mesh=mesh, in_specs=rows, out_specs=rows)
    compiled = jax.jit(sharded_mel).lower(sharded[0]).compile()
    assert 'all-gather' not in compiled.as_text()
    np.testing.assert_allclose(compiled(sharded[0]), jax.jit(mel)(x), rtol=0, atol=1e-5)
"""

HOST_MODULES = """
import sys
import alm_jax.audio, alm_jax.text
from alm_jax.audio import decode, log_mel, presets, resample, windows
from alm_jax.text import templates, tokenizer
loaded = {'jax', 'flax', 'torch', 'tensorflow', 'scipy'} & set(sys.modules)
assert not loaded, loaded
"""


def run(program):
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_four_devices_give_what_one_gives_and_nothing_is_gathered():
    run(FOUR_DEVICES)


def test_host_modules_do_not_load_jax():
    run(HOST_MODULES)
