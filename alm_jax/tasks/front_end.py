"""From PCM to augmented log-mel on the device, as every task that trains on audio needs it."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from alm_jax.audio import augment, presets
from alm_jax.audio.log_mel_device import log_mel_device
from alm_jax.config import ConfigError, choose
from alm_jax.training import sharding


class FrontEnd:
    """What ``config.front_end`` and ``config.augment`` say.

    Attributes:
      preset: the log-mel constants.
      sampling_rate: Hz.
      window_samples: samples of one training row and of one evaluation window.
    """

    def __init__(self, config: ConfigDict, mesh: Mesh | None = None):
        """Raises ConfigError: an unknown preset, a window too short, or an option of no effect."""
        self.preset = choose(presets.PRESETS, config.front_end.preset, where='front_end.preset')
        self.sampling_rate = self.preset.sampling_rate
        self.window_samples = round(config.front_end.seconds * self.sampling_rate)
        if self.window_samples < self.preset.n_fft:
            raise ConfigError(
                f'config.front_end.seconds is {config.front_end.seconds}; the window must hold '
                f'{self.preset.n_fft} samples of {self.sampling_rate} Hz.'
            )
        self._augment = _checked_augment(config)
        self._mesh = mesh

    @property
    def window_frames(self) -> int:
        """Frames of a window."""
        return self.preset.num_frames(self.window_samples)

    def sha256(self, policy: str) -> str:
        """Names the log-mel constants, the window and the ``policy`` for long clips."""
        return presets.front_end_sha256(
            self.preset, window_samples=self.window_samples, policy=policy
        )

    def empty(self, rows: int) -> tuple[jax.Array, jax.Array]:
        """(zeros [rows, t, bands], int32 [rows] of t): what a model is initialised with."""
        mel = jnp.zeros((rows, self.window_frames, self.preset.bands))
        return mel, jnp.full((rows,), self.window_frames, jnp.int32)

    def augmented(
        self, batch: Mapping[str, jax.Array], rng: jax.Array, mel_rng: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The features of a training batch, augmented on the device.

        Args:
          batch: 'pcm' int16 [b, n] and 'num_samples' int32 [b], or with a host front end 'mel'
            [b, t, n_mels] and 'num_frames' int32 [b].
          rng: of gain, shift and noise; ``mel_rng`` of SpecAugment.

        Returns:
          (float32 [b, t, n_mels], valid frames int32 [b]).
        """
        with jax.named_scope('front_end'):
            mel, num_frames = self._features(batch, rng)
            mel = augment.spec_augment(
                mel_rng,
                mel,
                num_frames,
                time_masks=self._augment.time_masks,
                time_mask_frames=self._augment.time_mask_frames,
                freq_masks=self._augment.freq_masks,
                freq_mask_bins=self._augment.freq_mask_bins,
            )
        return mel, num_frames

    def plain(self, pcm_bn, num_samples_b) -> tuple[jax.Array, jax.Array]:
        """The features of windows as they are, on the device that has them."""
        return log_mel_device(_from_pcm(pcm_bn), self.preset), self._num_frames(num_samples_b)

    def _features(self, batch, rng):
        if 'mel' in batch:
            return batch['mel'].astype(jnp.float32), batch['num_frames']
        gain_rng, shift_rng, noise_rng = jax.random.split(rng, 3)
        num_samples = batch['num_samples']
        shift = round(self._augment.shift_seconds * self.sampling_rate)
        x = _from_pcm(batch['pcm'])
        x = augment.gain(gain_rng, x, self._augment.gain_db)
        x = augment.time_shift(shift_rng, x, num_samples, shift)
        x = augment.add_noise(noise_rng, x, num_samples, self._augment.noise_snr_db)
        return self._sharded_log_mel(x), self._num_frames(num_samples)

    def _num_frames(self, num_samples_b):
        """Frames of each clip; of one that is absent there are none."""
        return jnp.where(num_samples_b > 0, self.preset.num_frames(num_samples_b), 0)

    def _sharded_log_mel(self, x_bn):
        """Each device does its own rows: the partitioner would gather the batch for an FFT."""
        log_mel = functools.partial(log_mel_device, front_end=self.preset)
        if self._mesh is None:
            return log_mel(x_bn)
        rows = PartitionSpec(sharding.batch_axes(self._mesh))
        return jax.shard_map(log_mel, mesh=self._mesh, in_specs=rows, out_specs=rows)(x_bn)


def _from_pcm(pcm):
    return pcm.astype(jnp.float32) / 32768.0


def _checked_augment(config: ConfigDict) -> ConfigDict:
    if config.front_end.on not in ('device', 'host'):
        raise ConfigError(f"config.front_end.on is {config.front_end.on!r}: 'device' or 'host'.")
    if config.front_end.on == 'host':
        for name in ('gain_db', 'shift_seconds', 'noise_snr_db'):
            if config.augment[name]:
                raise ConfigError(
                    f'config.augment.{name} changes waveforms on the device, which a host front '
                    "end does not send. Set it to its default, or front_end.on to 'device'."
                )
    return config.augment
