"""Any checkpoint that is read here as a Hugging Face folder of safetensors."""

import os
import pathlib

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.interop import converted, export, sources, tensor_files
from alm_jax.tasks import build_task
from alm_jax.training import checkpoint


def convert(src: str | os.PathLike, dst: str | os.PathLike) -> pathlib.Path:
    """Writes ``dst``: config.json, model.safetensors or shards, and what stood beside the weights.

    The folder appears when it is complete. Tensors keep the names of their family's reference; what
    is quantised becomes float32. Of a two-tower run with the right towers it is a ClapModel.

    Args:
      src: see ``sources.open_source``.
      dst: a new or empty folder.

    Raises:
      ConfigError: ``dst`` is not empty, ``src`` is no known checkpoint or of no known
        architecture, or its tensors are not those of its architecture.
    """
    dst = pathlib.Path(dst).expanduser().absolute()
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise ConfigError(f'{dst} is not an empty folder; give a new one.')
    source = sources.open_source(src)
    with converted.scratch(dst.parent) as room:
        made = room / 'made'
        if source.kind == sources.RUN:
            _export_run(source, made)
        else:
            _write(source, made)
        os.replace(made, dst)
    return dst


def _write(source: sources.Source, folder: pathlib.Path) -> None:
    account = sources.account(source)
    if account is None:
        known = str(source.config.get('model_type', ''))
        raise ConfigError(
            f'{source.path} ({source.kind}) is of no known architecture (model_type {known!r}).'
        )
    if account.left + account.missing + account.misfits:
        problems = [f'{n}: in the files, not in the model' for n in account.left]
        problems += [f'{n}: in the model, not in the files' for n in account.missing]
        problems += account.misfits
        raise ConfigError(
            f'{source.path} is no complete {source.family.name}: {len(problems)} tensors do not '
            f'match, {"; ".join(problems[:5])}. See python -m alm_jax.interop inspect.'
        )
    tensors, files = source.read()
    tensor_files.write(folder, tensors)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _export_run(source: sources.Source, folder: pathlib.Path) -> None:
    workdir = source.path.parent.parent
    file = workdir / sources.CONFIG
    config = config_lib.from_json(file.read_bytes(), str(file))
    config.text.tokenizer = str(workdir / 'tokenizer')
    params, extra = checkpoint.load_params(source.path)
    tokenizer = build_task(config).predictors.tokenizer
    export.export_clap(config, params, extra, tokenizer, folder)
