"""What is done to the sound of a row before it is stored: a room, a gain, noise. All keyed."""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np

from alm_jax.audio.decode import AudioError
from alm_jax.data import clips, mixing, row_keys
from alm_jax.data.row_keys import Purpose

LONGEST_RESPONSE = 10.0  # seconds of an impulse response that are read


@dataclasses.dataclass(frozen=True)
class Treatment:
    """Room, gain and noise, in this order, as a microphone has them.

    Attributes:
      sampling_rate: Hz.
      gain_db: most change of level, either way; 0 is off.
      snr_db: (low, high) of the noise.
    """

    sampling_rate: int
    gain_db: float = 0.0
    snr_db: tuple[float, float] = (5.0, 20.0)

    def __call__(
        self,
        heard: list[np.ndarray],
        key: int,
        longest: list[int],
        noise: clips.Record | None = None,
        impulse_response: clips.Record | None = None,
    ) -> list[np.ndarray]:
        """Treats the clips of one row; each gets the same gain, room and ratio.

        Args:
          heard: int16 or float32 [n] each.
          key: of the row.
          longest: samples that each may grow to, by the tail of the room.
          noise, impulse_response: records; None leaves that out.

        Returns:
          As ``heard``, which is returned itself where there is nothing to do; else float32, with no
          sample beyond full scale of int16.

        Raises:
          AudioError: noise or an impulse response that cannot be used; names it.
        """
        if noise is None and impulse_response is None and not self.gain_db:
            return heard
        heard = [clips.as_float(x) for x in heard]
        if impulse_response is not None:
            response = self._response(impulse_response, key)
            heard = [
                mixing.reverberate(x, response, self.sampling_rate, most)
                for x, most in zip(heard, longest)
            ]
        rng = row_keys.generator(key, Purpose.SOUND)
        change, snr = rng.uniform(-self.gain_db, self.gain_db), rng.uniform(*self.snr_db)
        if self.gain_db:
            heard = [mixing.gain(x, change) for x in heard]
        if noise is not None:
            heard = [
                mixing.add_noise(x, self._noise(noise, len(x), rng), snr, self.sampling_rate)
                for x in heard
            ]
        return [mixing.peak_guard(x) for x in heard]

    def _noise(self, noise: clips.Record, length: int, rng: np.random.Generator) -> np.ndarray:
        """float32 [length], from a random place of the noise."""
        with _named('noise', noise):
            spans = clips.clips_of(noise)
            span, place = spans[int(rng.integers(len(spans)))], int(rng.integers(2**63))
            cut = clips.cut(noise, span, length, self.sampling_rate, place)
            return mixing.fitted(clips.as_float(cut), length, rng)

    def _response(self, response: clips.Record, key: int) -> np.ndarray:
        """float32 [m], from its beginning."""
        with _named('impulse response', response):
            spans = clips.clips_of(response)
            span = spans[int(row_keys.generator(key, Purpose.ROOM).integers(len(spans)))]
            longest = int(LONGEST_RESPONSE * self.sampling_rate)
            cut = clips.as_float(clips.cut(response, span, longest, self.sampling_rate, None))
            if not cut.any():
                raise AudioError('it is silent.')
            return cut


@contextlib.contextmanager
def _named(what: str, record: clips.Record) -> Iterator[None]:
    """An AudioError inside says of which record it is; a failing disk stays a failing disk."""
    try:
        yield
    except AudioError as error:
        raise type(error)(f'{what} {record["id"]!r}: {error}') from error
