"""What the makers of accelerators publish of them, for rooflines and memory verdicts."""

import dataclasses

from alm_jax.config import ConfigError, did_you_mean

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator as JAX sees it, a device.

    Attributes:
      peak_flops: a second, dense products of bfloat16.
      memory_bytes: that a program may use: what the compiler itself gives as the limit (asked for a
        program of 160 GiB, libtpu 0.0.42.1, 2026-11-25), which is less than what is built in.
      memory_bandwidth: bytes a second of the main memory.
      link_bandwidth: bytes a second out of a device over all its links.
      links: there are, each to one neighbour; 1 is a switch, which reaches every device at full
        bandwidth.
      domain: devices that these links connect at most.
      beyond_bandwidth: bytes a second out of a device to others than these.
      source: of the figures.
    """

    peak_flops: float
    memory_bytes: int
    memory_bandwidth: float
    link_bandwidth: float
    links: int
    domain: int
    beyond_bandwidth: float
    source: str


CHIPS = {
    'v4': Chip(
        peak_flops=275e12,
        memory_bytes=int(30.75 * GIB),
        memory_bandwidth=1200e9,
        link_bandwidth=300e9,  # six links of 50 GB/s
        links=6,
        domain=4096,
        beyond_bandwidth=6.25e9,
        source='https://cloud.google.com/tpu/docs/v4 and Jouppi et al. 2023, '
        'https://arxiv.org/abs/2304.01433; its network beyond a pod as that of v5p',
    ),
    'v5e': Chip(
        peak_flops=197e12,
        memory_bytes=int(15.75 * GIB),
        memory_bandwidth=819e9,
        link_bandwidth=200e9,  # 400 GB/s both ways together
        links=4,
        domain=256,
        beyond_bandwidth=3.125e9,  # 6.4 Tbit/s a pod of 256
        source='https://cloud.google.com/tpu/docs/v5e',
    ),
    'v5p': Chip(
        peak_flops=459e12,
        memory_bytes=int(95.74 * GIB),
        memory_bandwidth=2765e9,
        link_bandwidth=600e9,  # 1200 GB/s both ways together
        links=6,
        domain=8960,
        beyond_bandwidth=6.25e9,  # 50 Gbit/s a chip
        source='https://cloud.google.com/tpu/docs/v5p',
    ),
    'v6e': Chip(
        peak_flops=918e12,
        memory_bytes=int(31.25 * GIB),
        memory_bandwidth=1638e9,
        link_bandwidth=400e9,  # 800 GB/s both ways together
        links=4,
        domain=256,
        beyond_bandwidth=12.5e9,  # 25.6 Tbit/s a pod of 256
        source='https://cloud.google.com/tpu/docs/v6e',
    ),
    'h100': Chip(
        peak_flops=989.4e12,
        memory_bytes=int(0.9 * 84_942_979_072),  # with XLA_PYTHON_CLIENT_MEM_FRACTION=0.9
        memory_bandwidth=3.35e12,
        link_bandwidth=450e9,  # NVLink, 900 GB/s both ways together
        links=1,
        domain=8,
        beyond_bandwidth=50e9,  # a ConnectX-7 of 400 Gbit/s a GPU in a DGX H100
        source='https://www.nvidia.com/en-us/data-center/h100/ (H100 SXM) and '
        'https://resources.nvidia.com/en-us-dgx-systems/ai-enterprise-dgx (DGX H100)',
    ),
}

# What devices call themselves (``device_kind``) -> their chip. Other forms of a chip, such as an
# H100 on a PCIe card, have other figures.
DEVICE_KINDS = {
    'TPU v4': 'v4',
    'TPU v5 lite': 'v5e',
    'TPU v5e': 'v5e',
    'TPU v5': 'v5p',
    'TPU v5p': 'v5p',
    'TPU v6 lite': 'v6e',
    'TPU v6e': 'v6e',
    'NVIDIA H100 80GB HBM3': 'h100',
}


def chip_of(device_kind: str) -> Chip | None:
    """The figures of a device by what it calls itself; None where they are not known."""
    return CHIPS.get(DEVICE_KINDS.get(device_kind, ''))


def chip(name: str) -> Chip:
    """The figures of a kind of chip.

    Raises:
      ConfigError: it is not known, naming the nearest.
    """
    if name not in CHIPS:
        raise ConfigError(f'--topology names {name!r}. {did_you_mean(name, list(CHIPS))}')
    return CHIPS[name]
