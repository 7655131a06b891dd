"""Members of a package as audio and as text, with errors that name package and member."""

import io

import numpy as np
import soundfile

from alm_jax.audio.decode import to_pcm16
from alm_jax.config import ConfigError
from alm_jax.data.catalog.packaged_sounds.package import Package

MAX_TEXT_BYTES = 1 << 20  # the longest text read here has 60 kB


def read_audio(package: Package, member: str) -> tuple[np.ndarray, int]:
    """Decodes an ogg, wav or flac member: (int16 mono [n], rate in Hz); channels are averaged.

    Not audio.decode: it takes an Ogg stream without an end for a truncated download, but encoders
    forgot the end in 560 of these files (all Arabic and Malayalam of KLettres), and a package is
    checked as a whole.
    """
    try:
        x_nc, rate = soundfile.read(
            io.BytesIO(package.read(member)), dtype='float32', always_2d=True
        )
    except soundfile.SoundFileError as error:
        raise ConfigError(f'{package.name}: {member} cannot be decoded: {error}.') from error
    if not len(x_nc) or not np.isfinite(x_nc).all():
        raise ConfigError(f'{package.name}: {member} holds no samples, or NaN.')
    return to_pcm16(x_nc.mean(axis=1)), rate


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
