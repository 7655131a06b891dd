"""Sound files, manifests, archives, weights and configs, as people have them: what is mutated."""

import io
import json
import pathlib
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from safetensors import numpy as safetensors_numpy

from alm_jax import config as config_lib
from alm_jax.data import location, sources
from tests.faults import ogg

# Name's ending -> (format, subtype) of libsndfile, channels.
AUDIO = {
    '16.wav': ('WAV', 'PCM_16', 1),
    '24.wav': ('WAV', 'PCM_24', 2),
    '8.wav': ('WAV', 'PCM_U8', 1),
    'float.wav': ('WAVEX', 'FLOAT', 1),
    'ulaw.wav': ('WAV', 'ULAW', 1),
    'adpcm.wav': ('WAV', 'MS_ADPCM', 1),
    'mono.flac': ('FLAC', 'PCM_16', 1),
    'stereo.flac': ('FLAC', 'PCM_24', 2),
    'vorbis.ogg': ('OGG', 'VORBIS', 1),
    'opus.ogg': ('OGG', 'OPUS', 2),
    'mono.mp3': ('MP3', 'MPEG_LAYER_III', 1),
    'stereo.mp3': ('MP3', 'MPEG_LAYER_III', 2),
    '16.aiff': ('AIFF', 'PCM_16', 1),
}
KINDS = ('audio', 'manifests', 'tars', 'safetensors', 'gguf', 'configs')
CONFIG = pathlib.Path(__file__).parents[2] / 'configs/clap/tiny.py'
_SECONDS = 0.3


def corpus(kind: str) -> dict[str, bytes]:
    """Name -> content of whole files of a kind; the same every time."""
    return globals()[f'_{kind}']()


def recordings(count: int) -> list[tuple[np.ndarray, int]]:
    """(int16 [n], Hz) of real recordings, cut to some tenths of a second."""
    source = sources.open_source('packaged_sounds/tiny:train', location.data_dir())
    found = [source[i] for i in range(0, len(source), max(1, len(source) // count))][:count]
    return [(r['audio'][: int(_SECONDS * r['rate'])], r['rate']) for r in found]


def written(samples: np.ndarray, rate: int, kind: str, subtype: str, channels: int = 1) -> bytes:
    """The content of a sound file."""
    file = io.BytesIO()
    rate = {'OPUS': 48_000}.get(subtype, rate)
    frames = np.repeat(samples[:, None] / 32768, channels, axis=1)
    soundfile.write(file, frames, rate, format=kind, subtype=subtype)
    return _timeless(file.getvalue())


def _timeless(content: bytes) -> bytes:
    """The same every time: without the time of a PEAK chunk, and the random number of an Ogg."""
    if (peak := content.find(b'PEAK')) > 0:
        content = content[: peak + 12] + bytes(4) + content[peak + 16 :]
    return ogg.renumbered(content)


def _audio() -> dict[str, bytes]:
    made = {}
    for number, (samples, rate) in enumerate(recordings(3)):
        for ending, (kind, subtype, channels) in AUDIO.items():
            made[f'{number}.{ending}'] = written(samples, rate, kind, subtype, channels)
    return made


def clips() -> dict[str, bytes]:
    """Sound files that belong beside other files."""
    kinds = {'0.flac': ('FLAC', 'PCM_16'), '1.wav': ('WAV', 'PCM_16'), '2.ogg': ('OGG', 'VORBIS')}
    made = zip(kinds, recordings(len(kinds)), strict=True)
    return {name: written(*recording, *kinds[name]) for name, recording in made}


def _manifests() -> dict[str, bytes]:
    rows = [
        {'file': f'clips/{name}', 'caption': f'A sound, number {i}.', 'label': 'sound', 'split': s}
        for i, (name, s) in enumerate(
            [('0.flac', 'train'), ('1.wav', 'train'), ('2.ogg', 'test'), ('0.flac', 'train')]
        )
    ]
    csv = 'file,caption,label,split\n' + ''.join(
        f'{r["file"]},"{r["caption"]}",{r["label"]},{r["split"]}\n' for r in rows
    )
    rich = [{**row, 'tags': ['a', 'b'], 'captions': ['One.', 'Two.']} for row in rows]
    return {
        'my.csv': csv.encode(),
        'my.jsonl': ''.join(json.dumps(row) + '\n' for row in rich).encode(),
        'snappy.parquet': _parquet('snappy'),
        'zstd.parquet': _parquet('zstd'),
        'plain.parquet': _parquet('none'),
    }


def _parquet(compression: str) -> bytes:
    found = clips()
    table = pa.table(
        {
            'audio': [{'bytes': clip, 'path': name} for name, clip in found.items()],
            'text': [f'A sound in {name}.' for name in found],
            'label': pa.array(['a', 'b', 'a']).dictionary_encode(),
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file, compression=compression)
    return file.getvalue()


def _tars() -> dict[str, bytes]:
    members = {}
    for name, clip in clips().items():
        number = name[0]
        members[f'shard/{name}'] = clip
        about = {'caption': f'Number {number}.', 'tags': ['a'], 'split': 'train'}
        members[f'shard/{number}.json'] = json.dumps(about).encode()
        members[f'shard/{number}.txt'] = b'A line.\nAnother.\n'
        members[f'shard/{number}.cls'] = b'dog'
    made = {}
    forms = {'ustar': tarfile.USTAR_FORMAT, 'gnu': tarfile.GNU_FORMAT, 'pax': tarfile.PAX_FORMAT}
    for name, form in forms.items():
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode='w', format=form) as tar:
            for member, content in members.items():
                info = tarfile.TarInfo(
                    member if form == tarfile.USTAR_FORMAT else 'x' * 99 + member
                )
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        made[f'{name}.tar'] = file.getvalue()
    return made


def _safetensors() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    tensors = {
        'encoder/kernel': rng.standard_normal((16, 8)).astype(np.float32),
        'encoder/bias': rng.standard_normal(8).astype(np.float16),
        'ids': np.arange(12, dtype=np.int64).reshape(3, 4),
        'flags': np.array([True, False]),
        'empty': np.zeros((0, 4), np.float32),
        'scalar': np.float64(3),
    }
    tensors = {name: np.asarray(array) for name, array in tensors.items()}
    return {
        'model.safetensors': safetensors_numpy.save(tensors, {'format': 'np'}),
        'index.json': json.dumps(
            {'metadata': {'total_size': 1}, 'weight_map': dict.fromkeys(tensors, 'a.safetensors')}
        ).encode(),
    }


def _gguf() -> dict[str, bytes]:
    tokens = ['<unk>', '<s>', '</s>', '\u2581', 'a', 'b', '\u2581a', 'ab']
    numbers = {'block_count': 1, 'embedding_length': 32, 'feed_forward_length': 64}
    numbers |= {'attention.head_count': 2, 'context_length': 128}
    pairs = [_pair('general.architecture', 8, _text('llama'))]
    pairs += [_pair(f'llama.{key}', 4, struct.pack('<I', n)) for key, n in numbers.items()]
    epsilon = struct.pack('<f', 1e-5)
    pairs.append(_pair('llama.attention.layer_norm_rms_epsilon', 6, epsilon))
    pairs.append(_pair('tokenizer.ggml.model', 8, _text('llama')))
    listed = {
        'tokens': (8, b''.join(map(_text, tokens))),
        'scores': (6, struct.pack('<8f', *range(0, -8, -1))),
        'token_type': (5, struct.pack('<8i', 2, 3, 3, *[1] * 5)),
    }
    for key, (kind, content) in listed.items():
        head = struct.pack('<IQ', kind, len(tokens))
        pairs.append(_pair(f'tokenizer.ggml.{key}', 9, head + content))
    # name -> (shape, innermost first; type of ggml: float32, float16, Q8_0, Q4_0; bytes)
    tensors = {
        'token_embd.weight': ((32, 8), 0, 1024),
        'blk.0.attn_q.weight': ((32, 32), 1, 2048),
        'blk.0.attn_k.weight': ((32, 32), 8, 1088),
        'blk.0.attn_v.weight': ((32, 32), 2, 576),
        'output_norm.weight': ((32,), 0, 128),
    }
    infos, data = b'', b''
    rng = np.random.default_rng(1)
    for name, (shape, kind, size) in tensors.items():
        data += bytes(-len(data) % 32)
        infos += _text(name) + struct.pack(f'<I{len(shape)}Q', len(shape), *shape)
        infos += struct.pack('<IQ', kind, len(data))
        data += rng.bytes(size)
    header = b'GGUF' + struct.pack('<IQQ', 3, len(tensors), len(pairs)) + b''.join(pairs) + infos
    return {'model.gguf': header + bytes(-len(header) % 32) + data}


def _text(value: str) -> bytes:
    return struct.pack('<Q', len(value.encode())) + value.encode()


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack('<I', kind) + value


def _configs() -> dict[str, bytes]:
    tiny = config_lib.experiment(CONFIG).get_config()
    return {
        'base.json': config_lib.to_json(config_lib.base()).encode(),
        'tiny.json': config_lib.to_json(tiny).encode(),
        'stages.json': json.dumps(
            [
                {'name': 'warm_up', 'steps': 600, 'freeze': ['^text/'], 'batch_size': 8},
                {
                    'name': 'all',
                    'steps': 400,
                    'optimizer.learning_rate': 1e-4,
                    'data.text.keyword_share': 0.5,
                    'augment.gain_db': 3.0,
                    'data.train': [{'name': 'packaged_sounds/tiny:train', 'weight': 2.0}],
                },
            ]
        ).encode(),
        'argument.txt': b'smoke,batch_size=64,learning_rate=1e-3,name=run',
    }
