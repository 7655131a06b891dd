"""The record: what every source yields, whatever it reads from, and its planning columns."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from alm_jax.audio import decode

# One question with its answer; turns with the same ``dialogue`` number belong together, in order.
TURN = {'question': '', 'answer': '', 'dialogue': 0}
# When something is heard: seconds from the start of the record, and what it is.
TIME = {'onset': 0.0, 'offset': 0.0, 'text': ''}
# Field -> what is stored when a dataset lacks it.
DEFAULTS = {
    # int16 mono PCM at its native rate, or a whole audio file: its bytes, or its path (os.PathLike)
    'audio': b'',
    'rate': 0,  # Hz
    'num_samples': 0,  # of all clips together
    'clip_samples': (),  # of each clip, when the record holds several, one after another
    'duration': 0.0,  # seconds
    'captions': (),
    'caption_own': '',  # in the language of the speech, when the captions are not
    'tags': (),
    'turns': (),  # of TURN
    'times': (),  # of TIME
    'label': '',  # class name
    'kind': '',  # sound, instrument, music or speech
    'language': '',  # BCP-47
    'transcript': '',
    'package': '',  # the collection it comes from
    'source': '',  # where in the collection, or the address it had
    'licence': '',
    'provenance': '',  # of the text: 'human', 'web' or 'generated: BY WHAT'
    'author': '',
    'recording_id': '',  # the same over datasets: youtube/ID, freesound/ID, else PACKAGE/FILE
    'id': '',  # unique in its dataset
    'group': '',  # the split unit
    'loudness': math.nan,  # LUFS
    'peak': math.nan,  # dB below full scale
    'silence': math.nan,  # share of the frames
}
STRUCTURES = {'turns': TURN, 'times': TIME}
PROVENANCES = ('human', 'web', 'generated')
# What planning and filtering need of every record, without its audio. Categories repeat from record
# to record; texts do not.
CATEGORIES = ('label', 'kind', 'package', 'language', 'licence', 'provenance')
TEXTS = ('id', 'recording_id', 'group')
NUMBERS = {
    'num_samples': np.int64,
    'rate': np.int32,
    'duration': np.float32,
    'clips': np.int16,  # in the record
    'num_captions': np.int16,
    'caption_chars': np.int32,  # of the longest caption
    'num_turns': np.int32,
    'loudness': np.float32,
    'peak': np.float32,
    'silence': np.float32,
    'recording_hash': np.uint64,  # stable_hash(recording_id): joins datasets without their texts
}
COLUMNS = (*TEXTS, *CATEGORIES, *NUMBERS)


def make_record(audio: np.ndarray | bytes, rate: int, **fields: Any) -> dict[str, Any]:
    """A record of int16 mono ``audio`` [n] at ``rate`` Hz; fields not given are empty.

    With the bytes of an audio file, ``num_samples`` must be given.
    """
    unknown = set(fields) - set(DEFAULTS)
    if unknown:
        raise TypeError(f'not fields of a record: {sorted(unknown)}')
    samples = fields.pop('num_samples', None)
    samples = len(audio) if samples is None else samples
    sizes = {'num_samples': samples, 'duration': samples / rate}
    return {**DEFAULTS, **sizes, **fields, 'audio': audio, 'rate': rate}


def decoded(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its audio as int16 PCM [n], and the sizes that it really has.

    Raises:
      AudioError: bytes that are not whole, readable audio; names the record.
    """
    audio = record['audio']
    if not isinstance(audio, decode.FILE):
        return dict(record)
    samples, rate = decode.decode(audio, name=record['source'] or record['id'])
    sizes = {'num_samples': len(samples), 'duration': len(samples) / rate, 'rate': rate}
    return {**record, **sizes, 'audio': decode.to_pcm16(samples)}


def columns_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The planning columns of one record."""
    counted = {
        'clips': max(1, len(record['clip_samples'])),
        'num_captions': len(record['captions']),
        'caption_chars': max(map(len, record['captions']), default=0),
        'num_turns': len(record['turns']),
        'recording_hash': stable_hash(record['recording_id']),
    }
    return {name: counted[name] if name in counted else record[name] for name in COLUMNS}


def stable_hash(text: str, bits: int = 64) -> int:
    """The first ``bits`` of BLAKE2b of ``text``: the same in every process and version."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=bits // 8).digest(), 'big')


def split_by_hash(recording_id: str) -> str:
    """train (80 %), validation or test: adding or removing records moves no other record."""
    share = stable_hash(recording_id) / 2**64
    return 'train' if share < 0.8 else 'validation' if share < 0.9 else 'test'
