"""The constants and their hash."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.audio.presets import PRESETS, front_end_sha256


@pytest.mark.parametrize('preset', PRESETS)
def test_a_preset_bears_its_name(preset):
    assert PRESETS[preset].name == preset


@pytest.mark.parametrize(
    ('preset', 'num_samples', 'frames'),
    [
        ('clap', 480_000, 1001),
        ('whisper_80', 480_000, 3000),
        ('whisper_128', 80_159, 500),
        ('fbank', 160_000, 998),
        ('beats', 16_000, 98),
        ('w2v_bert', 559, 1),
        ('cnn14', 320_000, 1001),
        ('passt', 319_999, 1000),  # 10 s after pre-emphasis
        ('yamnet', 15_600, 96),  # the 0.975 s patch of the published model
        ('yamnet', 399, 1),
        ('clap', 1, 1),
        ('af_clap', 160_000, 1001),
        ('salmonn', 480_000, 3000),
        ('whisper_80', 1, 1),
    ],
)
def test_num_frames(preset, num_samples, frames):
    front_end = PRESETS[preset]
    assert front_end.num_frames(num_samples) == frames
    np.testing.assert_array_equal(front_end.num_frames(np.array([num_samples] * 2)), frames)
    np.testing.assert_array_equal(jax.jit(front_end.num_frames)(jnp.array([num_samples])), frames)


def test_the_hash_changes_with_every_constant_and_with_the_context():
    front_end = PRESETS['fbank']
    changed = {
        field.name: dataclasses.replace(front_end, **{field.name: 0})
        for field in dataclasses.fields(front_end)
    }
    for name in ('power', 'dynamic_range'):
        changed[name] = dataclasses.replace(front_end, **{name: 1})
    hashes = {front_end_sha256(each) for each in changed.values()}
    hashes |= {front_end_sha256(front_end), front_end_sha256(front_end, seconds=5.0)}
    hashes |= {front_end_sha256(front_end, seconds=10.0)}
    # centred and drop_last are False already, so 0 leaves the value but not its JSON.
    assert len(hashes) == len(changed) + 3


def test_the_hash_does_not_depend_on_the_order_of_the_context():
    front_end = PRESETS['clap']
    assert front_end_sha256(front_end, a=1, b=2) == front_end_sha256(front_end, b=2, a=1)


@pytest.mark.parametrize(
    ('preset', 'sha256'),
    [
        ('clap', 'dde10c56d7593f8dbbcbad9f4ca1ac6bc31217603afc43288b14735ccc54fb28'),
        ('whisper_80', '9c2b7eb688d88b66c9b8c9d2dc70378b6d406c08926db4927524b0b8f0427f56'),
        ('whisper_128', '224c32ff2e0950d8d62868fb7fc8ec1de4b1e5948c4f232b1a2ba6c5580966cb'),
        ('fbank', '56e39c1c0c235986d62b80bd67c98ef441000d6a1c26599948b4815e47fba790'),
        ('beats', '2fb6da16f3bd3a16eec6e7de2f8e9fcd0f31100a38cdf605eb1ad74534e66c2e'),
        ('w2v_bert', '1b45a4bf9cb0c9c783ec45b2b7acc54a93f5767a75eefd90c515681453441a22'),
        ('cnn14', '711636765eafdc6cb4f07bdaeea9bd37aae26ea0d80941570b043f3cabfbdbad'),
        ('passt', '11f963d45c7711dee6379231ddc5eddfa612ff2798e7e86b8caa374078780f70'),
        ('yamnet', 'f4abc8acd31f673dd48e5f5948233501fdafb1eda74d2d2b87405a619b98e024'),
        ('af_clap', '7977e541d955ff1310619523b0ea38904fb4813531df2e4496f066913a3f29a1'),
        ('salmonn', 'cedb999a4fdb1103811f41f167ed4ca99dbb15bbf350063a3c31a0c64e72cf50'),
    ],
)
def test_the_constants_are_pinned(preset, sha256):
    """A published score names its front end by this hash."""
    assert front_end_sha256(PRESETS[preset]) == sha256
