"""The record: what every source yields, whatever it reads from."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# Field -> what is stored when a dataset lacks it.
DEFAULTS = {
    'audio': b'',  # int16 mono PCM at its native rate
    'rate': 0,  # Hz
    'num_samples': 0,
    'duration': 0.0,  # seconds
    'captions': (),  # English sentences, at least one
    'caption_own': '',  # in the language of the speech
    'tags': (),
    'label': '',  # class name
    'kind': '',  # sound, instrument or speech
    'language': '',  # BCP-47
    'transcript': '',
    'package': '',
    'source': '',
    'licence': '',
    'author': '',
    'recording_id': '',
    'id': '',
    'group': '',  # the split unit
}
# What planning and filtering need of every record, without its audio: field -> kind of column.
COLUMNS = {
    'id': str,
    'recording_id': str,
    'group': str,
    'label': str,
    'kind': str,
    'package': str,
    'language': str,
    'num_samples': np.int64,
    'rate': np.int32,
    'duration': np.float32,
}


def make_record(audio: np.ndarray, rate: int, **fields: Any) -> dict[str, Any]:
    """A record of int16 mono ``audio`` [n] at ``rate`` Hz; fields not given are empty."""
    unknown = set(fields) - set(DEFAULTS)
    if unknown:
        raise TypeError(f'not fields of a record: {sorted(unknown)}')
    sizes = {'num_samples': len(audio), 'duration': len(audio) / rate}
    return {**DEFAULTS, **sizes, **fields, 'audio': audio, 'rate': rate}


def make_columns(records: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Planning columns: an array for each of COLUMNS, in record order; text as unicode."""
    rows = [[record[name] for name in COLUMNS] for record in records]
    values = zip(*rows) if rows else [()] * len(COLUMNS)
    return {
        name: np.array(list(column), dtype=kind)
        for (name, kind), column in zip(COLUMNS.items(), values)
    }


def stable_hash(text: str, bits: int = 64) -> int:
    """The first ``bits`` of BLAKE2b of ``text``: the same in every process and version."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=bits // 8).digest(), 'big')
