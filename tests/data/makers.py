"""What the loader tests hand to worker processes. It imports little, as every worker does too."""

import dataclasses
import os
import signal
import sys
import threading
import time

import numpy as np

from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data.bad_records import BadRecord
from alm_jax.data.workers import Made


def letters(captions, lengths):
    """A tokenizer of code points, so that a batch shows its captions."""
    (length,) = lengths
    token_ids = np.zeros((len(captions), length), np.int32)
    for row, caption in enumerate(captions):
        codes = [ord(letter) for letter in caption[:length]]
        token_ids[row, : len(codes)] = codes
    return {'token_ids': token_ids, 'token_mask': token_ids > 0}


@dataclasses.dataclass
class Counting:
    """Rows that say which they are; the width of 'wide' changes from batch to batch."""

    num_rows: int

    def make(self, data_step, numbers, place, reading):
        for number in numbers:
            reading(number, 0)
            row = self.row(data_step, number)
            last = max(row)
            place(number, {name: row[name] for name in row if name != last})
        for number in numbers:
            place(number, {last: self.row(data_step, number)[last]})
        bad = [BadRecord('counted', f'{data_step}/{n}', 'odd', data_step) for n in numbers if n % 2]
        return Made(read=len(numbers), bad=bad)

    def row(self, data_step, number):
        seed = 1000 * data_step + number
        return {
            'number': np.int32(seed),
            'wide': np.full(1 + 700 * (data_step % 5), seed, np.int32),
            'mask': np.arange(3) < number,
        }

    def names(self, data_step, number, attempt):
        return f"'{data_step}/{number}' of counted"


@dataclasses.dataclass
class Failing(Counting):
    """Something happens when row 1 of batch 2 is read."""

    what: str = ''

    def row(self, data_step, number):
        if (data_step, number) == (2, 1):
            getattr(self, self.what)()
        return super().row(data_step, number)

    def config_error(self):
        raise ConfigError('record bad.wav: mend it')

    def audio_error(self):
        raise AudioError('record bad.wav: truncated')

    def defect(self):
        error = KeyError('caption')
        error.add_note('record bad.wav')
        raise error

    def exit_code(self):
        os._exit(3)

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def crash(self):
        os.kill(os.getpid(), signal.SIGSEGV)

    def hang(self):
        time.sleep(600)


class Telling(Counting):
    """Rows that tell about the process that makes them."""

    def row(self, data_step, number):
        return {
            'process': np.int64(os.getpid()),
            'threads': np.int32(threading.active_count()),
            'has_jax': np.bool_('jax' in sys.modules),
            'has_main': np.bool_(hasattr(sys.modules['__main__'], '__file__')),
            'blas_threads': np.int32(os.environ['OPENBLAS_NUM_THREADS']),
        }
