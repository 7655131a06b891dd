"""Windows cover every frame of a clip, and padding is invisible."""

import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.layers import windows


@pytest.mark.parametrize(('size', 'hop'), [(96, 48), (16, 16), (16, 10), (5, 1)])
def test_mask_counts_the_windows_of_the_clip_alone(size, hop):
    longest = 3 * size + 7
    lengths = np.arange(longest + 1)
    count = windows.num_windows(longest, size, hop)
    masks = np.asarray(windows.window_mask(jnp.asarray(lengths), count, size, hop))
    for num_frames, mask in zip(lengths, masks):
        alone = windows.num_windows(int(num_frames), size, hop)
        assert mask.tolist() == [i < alone for i in range(count)]
        # The last window of the clip ends at or after its last frame, and the one before does not.
        assert (alone - 1) * hop + size >= num_frames
        assert alone == 1 or (alone - 2) * hop + size < num_frames


def test_fill_padding_and_masked_mean():
    mel = jnp.arange(12.0).reshape(2, 3, 2)
    filled = windows.fill_padding(mel, jnp.array([3, 1]), 4, -7.0)
    want = [[[0, 1], [2, 3], [4, 5], [-7, -7]], [[6, 7], [-7, -7], [-7, -7], [-7, -7]]]
    np.testing.assert_array_equal(filled, want)
    mask = jnp.array([[True, True, False], [False, False, False]])
    poisoned = mel.at[0, 2].set(jnp.nan)
    np.testing.assert_array_equal(windows.masked_mean(poisoned, mask), [[1, 2], [0, 0]])
