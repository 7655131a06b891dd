"""What a user does with a neural codec that was read from a folder: waveforms to codes and back."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from alm_jax.config import ConfigError
from alm_jax.interop.family import Pretrained
from alm_jax.interop.waveforms import clips_at


@dataclasses.dataclass(frozen=True)
class Codes:
    """The codes of a batch of clips.

    Attributes:
      codes: int32 [b, codebooks, t].
      frame_mask: bool [b, t], the codes that begin within a clip.
      num_samples: int [b], of each clip at the codec's rate.
      scales: float32 [b, chunks] that a codec with chunks divides them by, or None.
    """

    codes: np.ndarray
    frame_mask: np.ndarray
    num_samples: np.ndarray
    scales: np.ndarray | None = None


class Codec(Pretrained):
    """A codec: ``encode`` and ``decode``.

    Calling it: (waveform_bnc, num_samples_b, codebooks=) -> named intermediates, see its module.
    """

    @property
    def sampling_rate(self) -> int:
        """The codec's rate in Hz; waveforms of another rate are resampled to it."""
        return self.config.get('sampling_rate', 24_000)

    @property
    def channels(self) -> int:
        """Of its waveforms."""
        return self.config.get('audio_channels', 1)

    @property
    def codebooks(self) -> int:
        """How many there are."""
        return self.module.size.codebooks

    def padded_samples(self, samples: int) -> int:
        """What the original's feature extractor pads a batch to whose longest clip is so long."""
        return samples

    def encode(
        self,
        waveform: np.ndarray | Sequence[np.ndarray],
        *,
        sampling_rate: int,
        codebooks: int | None = None,
    ) -> Codes:
        """Codes of clips.

        Clips of unequal length are padded with zeros as the original's feature extractor does, and
        are coded as it codes them: see the module for what then depends on padding.

        Args:
          waveform: a clip, or a list of clips; float in [-1, 1] or int16. Of mono codecs [n] each,
            or a batch [b, n]; of stereo ones [n, 2] each, or mono [n] for both channels.
          sampling_rate: of all the clips, in Hz.
          codebooks: how many, the first ones; None is all.

        Raises:
          ConfigError: no clip, one without samples or with NaN, other channels, or more codebooks
            than there are.
        """
        if codebooks is not None and not 1 <= codebooks <= self.codebooks:
            raise ConfigError(f'codebooks is {codebooks}; {self.folder} has {self.codebooks}.')
        clips = self._clips(waveform, sampling_rate)
        num_samples = np.array([len(clip) for clip in clips], np.int32)
        samples = self.padded_samples(int(num_samples.max()))
        x = np.zeros((len(clips), samples, self.channels), np.float32)
        for row, clip in zip(x, clips):
            row[: len(clip)] = clip
        outputs = self._encode(self._variables, x, num_samples, codebooks)
        made = {name: np.asarray(value) for name, value in outputs.items()}
        return Codes(num_samples=num_samples, **made)

    def decode(self, codes: Codes | np.ndarray) -> list[np.ndarray]:
        """Waveforms at the codec's rate: float32 [n], or [n, 2] of stereo codecs, a clip each.

        Args:
          codes: of ``encode``, and the clips have the lengths they had; or int [b, codebooks, t],
            of a codec without scales.

        Raises:
          ConfigError: codes of another shape, or out of range.
        """
        if not isinstance(codes, Codes):
            codes = np.asarray(codes)
            samples = np.full(len(codes), np.iinfo(np.int32).max)
            codes = Codes(codes, np.ones((), bool), samples)
        self._check(codes.codes)
        waves = self._decode(self._variables, codes.codes, codes.scales)
        clips = [wave[:samples] for wave, samples in zip(np.asarray(waves), codes.num_samples)]
        return [clip[:, 0] for clip in clips] if self.channels == 1 else clips

    def _clips(self, waveform, sampling_rate) -> list[np.ndarray]:
        """Clips [n_i, channels] at the codec's rate."""
        if self.channels == 1:
            clips = clips_at(waveform, sampling_rate, self.sampling_rate)
            return [clip[:, None] for clip in clips]
        single = np.ndim(waveform[0]) == 0 or np.shape(waveform[0]) == (self.channels,)
        clips = []
        for clip in [waveform] if single else waveform:
            clip = np.asarray(clip)
            if clip.ndim == 1:
                clip = np.repeat(clip[:, None], self.channels, axis=1)
            if clip.ndim != 2 or clip.shape[1] != self.channels:
                raise ConfigError(
                    f'a clip has shape {clip.shape}; expected [n] or [n, {self.channels}].'
                )
            clips.append(np.stack(clips_at(clip.T, sampling_rate, self.sampling_rate), axis=1))
        return clips

    def _check(self, codes: np.ndarray) -> None:
        rows = self.module.size.rows
        if codes.ndim != 3 or not 1 <= codes.shape[1] <= self.codebooks or not codes.size:
            raise ConfigError(
                f'codes have shape {codes.shape}; expected [b, codebooks, t] with at most '
                f'{self.codebooks} codebooks.'
            )
        if codes.min() < 0 or codes.max() >= rows:
            raise ConfigError(
                f'codes from {codes.min()} to {codes.max()}; {self.folder} has 0 to {rows - 1}.'
            )

    @property
    def _variables(self):
        return {'params': self.params, **self.extra}

    @functools.cached_property
    def _encode(self):
        kept = ('codes', 'frame_mask', 'scales')

        def encode(variables, x_bnc, num_samples_b, codebooks):
            outputs = self.module.apply(
                variables, x_bnc, num_samples_b, codebooks=codebooks, method='encode'
            )
            return {name: outputs[name] for name in kept if name in outputs}

        return jax.jit(encode, static_argnums=3)

    @functools.cached_property
    def _decode(self):
        def decode(variables, codes_bqt, scales_bm):
            scales = {} if scales_bm is None else {'scales_bm': scales_bm}
            return self.module.apply(variables, codes_bqt, method='decode', **scales)['waveform']

        return jax.jit(decode)
