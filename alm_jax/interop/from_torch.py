"""A .pt, .pth or .ckpt file as a folder that alm_jax reads: run once, where torch is.

  python -m alm_jax.interop.from_torch 630k-best.pt laion_clap --model_type laion_clap

Needs torch and nothing else of alm_jax, so that this file alone may be copied to a machine with
torch. A pickle is read with weights_only=True: code in it is not run. Tensors keep their names but
for 'module.' in front; optimizers and whatever else is no tensor are left out. config.json gets the
model type, what ``--set key=value`` says (JSON values), and a stored 'cfg' or 'config' of plain
values. What is written was complete before it got its name.
"""

import argparse
import json
import os
import pathlib
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

NESTED = ('state_dict', 'model_state_dict', 'best_state', 'model', 'module')
CONFIGS = ('cfg', 'config', 'hparams', 'hyper_parameters', 'args')
ALIGNMENT = 8
# torch's dtype -> the format's word.
DTYPES = {
    'torch.float64': 'F64',
    'torch.float32': 'F32',
    'torch.float16': 'F16',
    'torch.bfloat16': 'BF16',
    'torch.int64': 'I64',
    'torch.int32': 'I32',
    'torch.int16': 'I16',
    'torch.int8': 'I8',
    'torch.uint8': 'U8',
    'torch.bool': 'BOOL',
}


class Unreadable(Exception):
    """What the user can mend; printed on one line with exit code 2."""


def convert(src: str, dst: str, model_type: str, settings: Mapping[str, Any]) -> pathlib.Path:
    """Writes ``dst``/model.safetensors and ``dst``/config.json.

    Raises:
      Unreadable: no torch, no such file, a file that torch does not read without running code, one
        without tensors, or a ``dst`` that is not empty.
    """
    folder = pathlib.Path(dst)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Unreadable(f'{folder} is not an empty folder; give a new one.')
    loaded = _load(src)
    tensors = named_tensors(loaded)
    if not tensors:
        raise Unreadable(f'{src} holds no tensors, only {_described(loaded)}.')
    config = {**_stored_config(loaded), **described(model_type, tensors), **settings}
    config['model_type'] = model_type
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.partial-') as room:
        made = pathlib.Path(room) / 'made'
        made.mkdir()
        with (made / 'model.safetensors').open('wb') as file:
            write(file, tensors)
        text = json.dumps(config, indent=2, sort_keys=True) + '\n'
        (made / 'config.json').write_text(text, encoding='utf-8')
        os.replace(made, folder)
    return folder


def _load(src: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise Unreadable(
            f'torch cannot be imported ({error}). Run this where torch is: pip install torch, or '
            'copy alm_jax/interop/from_torch.py there and run python from_torch.py.'
        ) from error
    if not os.path.isfile(src):
        raise Unreadable(f'{src} does not exist.')
    try:
        with torch.serialization.safe_globals(_plain_types()):
            try:
                return torch.load(src, map_location='cpu', weights_only=True, mmap=True)
            except RuntimeError:  # files of before torch 1.6 cannot be mapped
                return torch.load(src, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError and others
        reason = ' '.join(str(error).split())[:300]
        raise Unreadable(f'{src} is not read by torch with weights_only=True: {reason}') from error


def _plain_types() -> list[Any]:
    """What stands beside the weights in many files, as their losses and options, and runs no code.

    numpy's scalars (LAION-CLAP), under both of the names that numpy has had for them; Namespace.
    """
    allowed: list[Any] = [argparse.Namespace]
    try:
        import numpy as np
    except ImportError:
        return allowed
    scalar = np.float64(0).__reduce__()[0]
    allowed += [(scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')]
    return [*allowed, np.dtype, *{type(np.dtype(kind)) for kind in 'fdlqi?'}]


def named_tensors(loaded: Any) -> dict[str, Any]:
    """Name -> tensor of a state_dict, however deep it lies; 'module.' is taken off.

    A state_dict is a mapping of names to tensors; the one under the first of NESTED counts, else
    the mapping itself. Raises Unreadable for a tensor of a type that safetensors has not.
    """
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in NESTED if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping):
        return {}
    tensors = {str(key): value for key, value in loaded.items() if hasattr(value, 'element_size')}
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in DTYPES:
            raise Unreadable(f'{name} is {tensor.dtype}, which is not written.')
    while tensors and all(name.startswith('module.') for name in tensors):
        tensors = {name.removeprefix('module.'): tensor for name, tensor in tensors.items()}
    return tensors


def described(model_type: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What the tensors of some layouts say about their configuration."""
    if model_type != 'laion_clap':
        return {}
    patches = tensors.get('audio_branch.patch_embed.proj.weight')
    sizes = {96: 'HTSAT-tiny', 128: 'HTSAT-base', 256: 'HTSAT-large'}
    if patches is None or patches.shape[0] not in sizes:
        raise Unreadable(
            'there is no audio_branch.patch_embed.proj.weight of a width that LAION-CLAP has '
            f'({", ".join(map(str, sizes))}): is it another architecture?'
        )
    fusion = any(name.startswith('audio_branch.patch_embed.fusion_model') for name in tensors)
    return {'amodel': sizes[patches.shape[0]], 'tmodel': 'roberta', 'enable_fusion': fusion}


def _stored_config(loaded: Any) -> dict[str, Any]:
    """The plain values of a configuration that stands beside the weights."""
    if not isinstance(loaded, Mapping):
        return {}
    found = next((loaded[key] for key in CONFIGS if isinstance(loaded.get(key), Mapping)), {})
    return {str(key): value for key, value in found.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _described(loaded: Any) -> str:
    if isinstance(loaded, Mapping):
        return f'a mapping of {", ".join(map(str, list(loaded)[:8])) or "nothing"}'
    return f'a {type(loaded).__name__}'


def write(file: BinaryIO, tensors: Mapping[str, Any]) -> None:
    """safetensors (https://github.com/huggingface/safetensors#format), one tensor at a time.

    Tensors that share memory are written out each.
    """
    header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
    at = 0
    for name, tensor in sorted(tensors.items()):
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            'dtype': DTYPES[str(tensor.dtype)],
            'shape': list(tensor.shape),
            'data_offsets': [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % ALIGNMENT)
    file.write(struct.pack('<Q', len(text)) + text)
    for name in sorted(tensors):
        for part in _bytes(tensors[name]):
            file.write(part)


def _bytes(tensor: Any) -> Iterator[memoryview]:
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    if flat.numel():
        yield memoryview(flat.view(torch.uint8).numpy())


def _settings(given: list[str]) -> dict[str, Any]:
    settings = {}
    for item in given:
        key, equals, text = item.partition('=')
        if not equals:
            raise Unreadable(f'--set {item!r} is not key=value.')
        try:
            settings[key] = json.loads(text)
        except ValueError:
            settings[key] = text
    return settings


def main(arguments: list[str] | None = None) -> int:
    """See the head of this file."""
    parser = argparse.ArgumentParser(
        'python -m alm_jax.interop.from_torch', description=__doc__.partition('\n')[0]
    )
    parser.add_argument('src', metavar='SRC', help='a .pt, .pth, .bin or .ckpt file')
    parser.add_argument('dst', metavar='DST', help='a new folder')
    parser.add_argument('--model_type', required=True, help='of config.json, such as laion_clap')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE', help='likewise')
    given = parser.parse_args(arguments)
    try:
        folder = convert(given.src, given.dst, given.model_type, _settings(given.set))
    except Unreadable as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'written: {folder}')
    if given.model_type == 'laion_clap':
        print(f'for texts, put tokenizer.json of roberta-base into {folder}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
