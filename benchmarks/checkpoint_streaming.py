"""Host memory while a checkpoint of many shards is read, beside the arrays that it fills.

COMMAND: python benchmarks/checkpoint_streaming.py
HARDWARE, TIME: CPU; a minute, and 2.2 GiB of disk under --folder for as long as it runs.

Writes a decoder (a llama of 1.1 G bfloat16 values in 24 files of random numbers) and reads it in a
fresh process each: onto one device, replicated over two, sharded over four, and as float32 sharded
over four. The devices are CPU devices, so that the filled arrays are host memory too and are taken
off. What counts is anonymous memory (RssAnon of /proc/self/status, every 2 ms): the files are
mapped by the library, and pages of them that the system keeps are no memory of ours. Prints for
each the peak beyond the arrays, in units of the largest tensor of the files. Aim: at most 2.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import ml_dtypes
import numpy as np
from absl import app, flags
from safetensors.numpy import save_file

_FOLDER = flags.DEFINE_string('folder', '', 'Where the checkpoint is written; a temporary one.')
_CASE = flags.DEFINE_string('case', '', 'One of CASES, in this process.')

CONFIG = {
    'model_type': 'llama',
    'architectures': ['LlamaForCausalLM'],
    'hidden_size': 2048,
    'num_hidden_layers': 22,
    'num_attention_heads': 32,
    'num_key_value_heads': 4,
    'intermediate_size': 5632,
    'vocab_size': 32_000,
    'tie_word_embeddings': False,
}  # TinyLlama-1.1B
CASES = {  # name -> (devices, sharded, dtype)
    'one device': (1, False, 'bfloat16'),
    'replicated over two': (2, False, 'bfloat16'),
    'sharded over four': (4, True, 'bfloat16'),
    'sharded over four, float32': (4, True, 'float32'),
}
LIMIT = 2.0


def layer(number):
    """Names and shapes of a layer's tensors."""
    width, mlp = CONFIG['hidden_size'], CONFIG['intermediate_size']
    kv = width // CONFIG['num_attention_heads'] * CONFIG['num_key_value_heads']
    name = f'model.layers.{number}.'
    return {
        f'{name}input_layernorm.weight': (width,),
        f'{name}post_attention_layernorm.weight': (width,),
        f'{name}self_attn.q_proj.weight': (width, width),
        f'{name}self_attn.k_proj.weight': (kv, width),
        f'{name}self_attn.v_proj.weight': (kv, width),
        f'{name}self_attn.o_proj.weight': (width, width),
        f'{name}mlp.gate_proj.weight': (mlp, width),
        f'{name}mlp.up_proj.weight': (mlp, width),
        f'{name}mlp.down_proj.weight': (width, mlp),
    }


def write(folder):
    """A shard a layer, one for the embeddings and one for the head."""
    width, vocabulary = CONFIG['hidden_size'], CONFIG['vocab_size']
    ends = [
        {'model.embed_tokens.weight': (vocabulary, width), 'model.norm.weight': (width,)},
        {'lm_head.weight': (vocabulary, width)},
    ]
    shards = [layer(number) for number in range(CONFIG['num_hidden_layers'])] + ends
    generator = np.random.default_rng(0)
    weight_map, total = {}, 0
    for number, shapes in enumerate(shards, start=1):
        name = f'model-{number:05d}-of-{len(shards):05d}.safetensors'
        # Any bits below those of the exponent: numbers near 1, made fast.
        tensors = {
            tensor: (generator.integers(0, 128, shape, np.uint16) | 0x3F80).view(ml_dtypes.bfloat16)
            for tensor, shape in shapes.items()
        }
        save_file(tensors, folder / name)
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
    (folder / 'config.json').write_text(json.dumps(CONFIG))
    return total


def anonymous_bytes():
    status = pathlib.Path('/proc/self/status').read_text()
    return int(re.search(r'RssAnon:\s+(\d+) kB', status)[1]) << 10


class Peak(threading.Thread):
    """The largest anonymous memory until it is stopped."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes, self._stop_asked = anonymous_bytes(), threading.Event()

    def run(self):
        while not self._stop_asked.wait(0.002):
            self.bytes = max(self.bytes, anonymous_bytes())

    def stop(self):
        self._stop_asked.set()
        self.join()
        return max(self.bytes, anonymous_bytes())


def measure(folder, case):
    """Reads the checkpoint; prints bytes as JSON. The whole of it in this process is measured."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

    from alm_jax.interop import from_pretrained
    from alm_jax.interop.tensor_files import TensorFiles

    devices, sharded, dtype = CASES[case]
    mesh = Mesh(np.array(jax.devices()), ('fsdp',))
    assert mesh.size == devices

    def place(path, leaf):
        """The largest axis of a leaf, its layers aside, over the devices."""
        if devices == 1:
            return SingleDeviceSharding(jax.devices()[0])
        spec = [None] * len(leaf.shape)
        if sharded:
            inner = range(1 if path.startswith('layers') else 0, len(leaf.shape))
            spec[max(inner, key=lambda axis: leaf.shape[axis])] = 'fsdp'
        return NamedSharding(mesh, PartitionSpec(*spec))

    files = TensorFiles(folder)
    largest = max(files.nbytes(name) for name in files)
    jnp.zeros(1).block_until_ready()
    before = anonymous_bytes()
    peak = Peak()
    peak.start()
    start = time.perf_counter()
    model = from_pretrained(folder, dtype=jnp.dtype(dtype), sharding=place)
    seconds = time.perf_counter() - start
    highest = peak.stop()
    leaves = jax.tree.leaves(model.params)
    filled = sum(part.data.nbytes for leaf in leaves for part in leaf.addressable_shards)
    check(files, model)
    figures = {'largest': largest, 'filled': filled, 'beyond': highest - before - filled}
    print(json.dumps({**figures, 'seconds': round(seconds, 1)}))


def check(files, model):
    """A few values are where they belong."""
    kernel = np.asarray(model.params['layers']['mlp']['up']['kernel'][7, :, 4000:4010])
    stored = files['model.layers.7.mlp.up_proj.weight'][4000:4010]
    np.testing.assert_array_equal(kernel.T.astype(np.float32), stored.astype(np.float32))
    head = np.asarray(model.params['lm_head']['kernel'][5:9])
    np.testing.assert_array_equal(
        head.T.astype(np.float32), files['lm_head.weight'][:, 5:9].astype(np.float32)
    )


def run(folder, case):
    """``measure`` in a fresh process with so many CPU devices: its figures."""
    options = f'--xla_force_host_platform_device_count={CASES[case][0]}'
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    environment['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {options}'
    command = [sys.executable, __file__, f'--folder={folder}', f'--case={case}']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main(_):
    if _CASE.value:
        measure(_FOLDER.value, _CASE.value)
        return
    with tempfile.TemporaryDirectory(dir=_FOLDER.value or None) as folder:
        total = write(pathlib.Path(folder))
        print(f'{total / 2**30:.2f} GiB in {CONFIG["num_hidden_layers"] + 2} files')
        for case in CASES:
            figures = run(folder, case)
            times = figures['beyond'] / figures['largest']
            print(
                f'{case}: arrays {figures["filled"] / 2**20:.0f} MiB, largest tensor '
                f'{figures["largest"] / 2**20:.0f} MiB, beyond the arrays at most '
                f'{figures["beyond"] / 2**20:.0f} MiB = {times:.2f} of it; '
                f'{figures["seconds"]} s'
            )


if __name__ == '__main__':
    app.run(main)
