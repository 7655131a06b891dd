"""Members of a package as audio and as text, with errors that name package and member."""

import numpy as np

from alm_jax.audio.decode import decode, to_pcm16
from alm_jax.config import ConfigError
from alm_jax.data.catalog.packaged_sounds.package import Package

MAX_TEXT_BYTES = 1 << 20  # the longest text read here has 60 kB


def read_audio(package: Package, member: str) -> tuple[np.ndarray, int]:
    """Decodes an ogg, wav or flac member: (int16 mono [n], rate in Hz)."""
    x, rate = decode(package.read(member), f'{package.name}: {member}')
    return to_pcm16(x), rate


def read_text(package: Package, member: str) -> str:
    """A UTF-8 text member; ConfigError when it is too long or not text."""
    return as_text(package.read(member), f'{package.name}: {member}')


def as_text(data: bytes, where: str) -> str:
    """UTF-8 bytes as text, without a byte order mark; ConfigError names ``where``."""
    if len(data) > MAX_TEXT_BYTES:
        raise ConfigError(f'{where} is larger than the {MAX_TEXT_BYTES} bytes a text may have.')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ConfigError(f'{where} is not UTF-8 text: {error}.') from error
