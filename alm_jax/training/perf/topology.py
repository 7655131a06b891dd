"""Devices that are not there: what the compilers of TPUs and GPUs need to know of them."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from jax.experimental import topologies

from alm_jax.config import ConfigError
from alm_jax.training.perf.hardware import Chip, chip

EXAMPLES = 'v5e:16x16, v5e:16x16*2 (two slices), v4:4x4x4, v5p:8x8x8, v6e:16x16, h100:8, h100:64'
GPUS_A_NODE = 8

# What CUDA says of an H100 SXM, so that the compiler need not ask a device.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  memory_bandwidth: 3352320000000
  device_memory_size: 84942979072
}
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 12 minor: 9 }
dnn_version_info { major: 9 minor: 10 }
"""
# The tiles of Triton's products are chosen by timing them, for which there is no device here; what
# the compiler falls back to it may find impossible. cuBLAS needs no tiles.
_GPU_OPTIONS = {'xla_gpu_enable_triton_gemm': False}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices for which programs can be compiled but not run.

    Attributes:
      name: as given.
      chip: published figures.
      torus: chips along each axis of a slice; () for GPUs.
      devices: as ``jax.make_mesh`` takes them.
      compiler_options: that programs for it are compiled with.
    """

    name: str
    chip: Chip
    torus: tuple[int, ...]
    devices: tuple[Any, ...]
    compiler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def describe(name: str) -> Topology:
    """The devices of ``name``, such as one of EXAMPLES.

    Raises:
      ConfigError: the name is none, the compiler's package is missing, or it refuses the shape.
    """
    match = re.fullmatch(r'(\w+):(\d+(?:x\d+){0,2})(?:\*(\d+))?', name)
    if not match:
        raise ConfigError(f'--topology is {name!r}; write one such as {EXAMPLES}.')
    kind, sizes = match.group(1), tuple(int(size) for size in match.group(2).split('x'))
    figures, slices = chip(kind), int(match.group(3) or 1)
    if kind == 'h100':
        if len(sizes) > 1 or slices > 1 or (sizes[0] > GPUS_A_NODE and sizes[0] % GPUS_A_NODE):
            raise ConfigError(
                f'--topology is {name!r}; give GPUs as h100:N, N at most {GPUS_A_NODE} or a '
                f'multiple of it, which is as many nodes.'
            )
        return Topology(name, figures, (), _gpus(sizes[0]), _GPU_OPTIONS)
    if len(sizes) != (2 if kind in ('v5e', 'v6e') else 3):
        raise ConfigError(f'--topology is {name!r}; write one such as {EXAMPLES}.')
    return Topology(name, figures, sizes, _tpus(kind, sizes, slices))


def _tpus(kind: str, sizes: tuple[int, ...], slices: int) -> tuple[Any, ...]:
    _require('libtpu', 'tpu', 'the TPU compiler')
    # Nothing here is on a TPU host, so the library need not look for one.
    for key, value in {
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_ACCELERATOR_TYPE': f'{kind}-{math.prod(sizes)}',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'TPU_WORKER_ID': '0',
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # its lock is for programs that hold devices
    }.items():
        os.environ.setdefault(key, value)
    options = {'num_slices': slices} if slices > 1 else {}
    if kind == 'v4':
        options['chip_config_name'] = 'megacore'  # both cores of a chip are one device
    shape = 'x'.join(map(str, sizes))
    return _compile_only('tpu', f'{kind}:{shape}', topology_name=f'{kind}:{shape}', **options)


def _gpus(count: int) -> tuple[Any, ...]:
    _require('jax_cuda12_plugin', 'cuda', 'the GPU compiler')
    _require('nvidia.cuda_nvcc', 'cuda', 'the assembler of GPU programs (nvidia-cuda-nvcc-cu12)')
    nodes, each = max(1, count // GPUS_A_NODE), min(count, GPUS_A_NODE)
    shape = f'1x{nodes}x{each}'
    return _compile_only(
        'cuda', f'h100:{count}', topology_name='h100', target_config=_H100, topology=shape
    )


def _compile_only(platform: str, name: str, **options: Any) -> tuple[Any, ...]:
    try:
        return tuple(topologies.get_topology_desc(platform=platform, **options).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f'--topology {name}: the compiler refuses it ({reason}). Give one that exists, such as '
            f'{EXAMPLES}.'
        ) from error


def _require(module: str, extra: str, what: str) -> None:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError(
            f'--topology needs {what}, which is not installed: pip install "alm_jax[{extra}]", '
            'best into an environment of its own, for beside it jax looks for a device at import.'
        )
