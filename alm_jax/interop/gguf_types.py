"""How GGUF stores numbers: plain, or in blocks of a few bits with a scale.

A quantised row is a sequence of blocks, little-endian records whose layout is ggml's
(ggml-common.h). The arithmetic is float32, in ggml's order, so that results have its bits.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

CHUNK = 1 << 16  # blocks turned at once, so that intermediates stay small


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to store numbers.

    Attributes:
      name: ggml's.
      block: numpy record of a block.
      values: numbers in a block.
      turn: records [n] -> float32 [n, values].
    """

    name: str
    block: np.dtype
    values: int
    turn: Callable[[np.ndarray], np.ndarray]

    @property
    def bytes(self) -> int:
        """Of a block."""
        return self.block.itemsize

    def read(self, data: np.ndarray) -> np.ndarray:
        """uint8 [n * bytes] -> float32 [n * values]."""
        blocks = np.frombuffer(data, self.block)
        out = np.empty((len(blocks), self.values), np.float32)
        with np.errstate(all='ignore'):  # what is no number in the file is none here
            for start in range(0, len(blocks), CHUNK):
                out[start : start + CHUNK] = self.turn(blocks[start : start + CHUNK])
        return out.reshape(-1)


def _column(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)[:, None]


def _nibbles(q: np.ndarray) -> np.ndarray:
    """uint8 [n, ..., k] -> [n, ..., 2, k]: all low halves, then all high ones."""
    return np.stack([q & 15, q >> 4], axis=-2)


def _bits(h: np.ndarray) -> np.ndarray:
    """uint8 [n, 4] -> 0 or 1, [n, 32], lowest bit first."""
    return np.unpackbits(h, axis=1, bitorder='little')


def _q4_0(b: np.ndarray) -> np.ndarray:
    q = _nibbles(b['q']).reshape(-1, 32).astype(np.int8) - 8
    return _column(b['d']) * q


def _q4_1(b: np.ndarray) -> np.ndarray:
    return _column(b['d']) * _nibbles(b['q']).reshape(-1, 32) + _column(b['m'])


def _q5_0(b: np.ndarray) -> np.ndarray:
    q = _nibbles(b['q']).reshape(-1, 32) | (_bits(b['h']) << 4)
    return _column(b['d']) * (q.astype(np.int8) - 16)


def _q5_1(b: np.ndarray) -> np.ndarray:
    q = _nibbles(b['q']).reshape(-1, 32) | (_bits(b['h']) << 4)
    return _column(b['d']) * q + _column(b['m'])


def _q8_0(b: np.ndarray) -> np.ndarray:
    return _column(b['d']) * b['q']


def _scales_and_minima(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n, 8, 1] each: twelve bytes hold eight scales and eight minima of six bits."""
    low, high, rest = b['s'][:, :4], b['s'][:, 4:8], b['s'][:, 8:]
    scales = np.concatenate([low & 63, (rest & 15) | (low >> 6 << 4)], axis=1)
    minima = np.concatenate([high & 63, (rest >> 4) | (high >> 6 << 4)], axis=1)
    scales, minima = _column(b['d']) * scales, _column(b['m']) * minima
    return scales[:, :, None], minima[:, :, None]


def _q4_k(b: np.ndarray) -> np.ndarray:
    scales, minima = _scales_and_minima(b)
    q = _nibbles(b['q'].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return (scales * q - minima).reshape(-1, 256)


def _q5_k(b: np.ndarray) -> np.ndarray:
    scales, minima = _scales_and_minima(b)
    fifth = (b['h'][:, None] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    q = _nibbles(b['q'].reshape(-1, 4, 32)).reshape(-1, 8, 32) | (fifth << 4)
    return (scales * q - minima).reshape(-1, 256)


def _q6_k(b: np.ndarray) -> np.ndarray:
    low = _nibbles(b['l'].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    two = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = (b['h'].reshape(-1, 2, 1, 32) >> two) & 3
    q = (low | (high << 4)).astype(np.int8).reshape(-1, 16, 16) - 32
    scales = (_column(b['d']) * b['s'])[:, :, None]
    return (scales * q).reshape(-1, 256)


def _bf16(b: np.ndarray) -> np.ndarray:
    return (b.astype(np.uint32) << 16).view(np.float32)[:, None]


def _kind(name, values, turn, *fields) -> Kind:
    return Kind(name, np.dtype(list(fields)), values, turn)


_D, _M = ('d', '<f2'), ('m', '<f2')
TYPES = {  # ggml_type -> kind
    0: Kind('F32', np.dtype('<f4'), 1, _column),
    1: Kind('F16', np.dtype('<f2'), 1, _column),
    2: _kind('Q4_0', 32, _q4_0, _D, ('q', 'u1', 16)),
    3: _kind('Q4_1', 32, _q4_1, _D, _M, ('q', 'u1', 16)),
    6: _kind('Q5_0', 32, _q5_0, _D, ('h', 'u1', 4), ('q', 'u1', 16)),
    7: _kind('Q5_1', 32, _q5_1, _D, _M, ('h', 'u1', 4), ('q', 'u1', 16)),
    8: _kind('Q8_0', 32, _q8_0, _D, ('q', 'i1', 32)),
    12: _kind('Q4_K', 256, _q4_k, _D, _M, ('s', 'u1', 12), ('q', 'u1', 128)),
    13: _kind('Q5_K', 256, _q5_k, _D, _M, ('s', 'u1', 12), ('h', 'u1', 32), ('q', 'u1', 128)),
    14: _kind('Q6_K', 256, _q6_k, ('l', 'u1', 128), ('h', 'u1', 64), ('s', 'i1', 16), _D),
    30: Kind('BF16', np.dtype('<u2'), 1, _bf16),
}
