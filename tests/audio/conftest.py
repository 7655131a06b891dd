"""Real recordings for the front end's tests."""

import io

import numpy as np
import pytest
import soundfile

from alm_jax.data.catalog.packaged_sounds import fetch


@pytest.fixture(scope='session')
def clips():
    """Every fourth recording of minetest-data: (name, float32 [n] on the int16 grid, rate) each.

    From 0.1 to 8 s, footsteps and doors to fire and explosions, read without the code under test.
    """
    package = fetch.open_package('minetest-data')
    members = [member for member in package.members() if member.endswith('.ogg')]
    read = []
    for member in members[::4]:
        x, rate = soundfile.read(io.BytesIO(package.read(member)), always_2d=True)
        pcm = np.clip(np.rint(x.mean(axis=1) * 32768), -32768, 32767)
        read.append((member.rsplit('/', 1)[-1], (pcm / 32768).astype(np.float32), rate))
    assert len(read) == 28
    return read
