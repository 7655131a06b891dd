"""Looks at datasets before anything is trained on them.

  python -m alm_jax.data leaks TRAIN EVAL --out leaks.txt [--audio] [--text]
  python -m alm_jax.data leaks NAME --audio                  # copies within one dataset
  python -m alm_jax.data inspect NAME --out page.html
  python -m alm_jax.data dry_run --config configs/clap/tiny.py --steps 1000

NAME is what config.data.train takes: 'packaged_sounds/tiny:train', 'folder:my?captions=my.csv',
'tars:shards/*.tar' and so on. No command builds a model or touches an accelerator.
"""

import contextlib
import pathlib
from collections.abc import Sequence

from absl import flags

from alm_jax import config as config_lib
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import location, sources

_OUT = flags.DEFINE_string('out', '', 'leaks: the blocklist; inspect: the page.')
_DATA_DIR = flags.DEFINE_string(
    'data_dir', '', 'Where prepared data lies: by default $ALM_JAX_DATA, else ~/.cache/alm_jax.'
)
_WORKERS = flags.DEFINE_integer('workers', 2, 'Processes that read and compare.', lower_bound=0)
_AUDIO = flags.DEFINE_bool('audio', False, 'leaks: compare fingerprints, which decodes all audio.')
_TEXT = flags.DEFINE_bool('text', False, 'leaks: compare captions.')
_BLOCK_TEXT = flags.DEFINE_bool('block_text', False, 'leaks: block records of equal captions too.')
_N = flags.DEFINE_integer('n', 24, 'inspect: examples to listen to.', lower_bound=0)
_SEED = flags.DEFINE_integer('seed', 0, 'inspect: chooses the examples.')
_STEPS = flags.DEFINE_integer('steps', 1000, 'dry_run: batches.', lower_bound=1)
_VECTORS = flags.DEFINE_float(
    'vectors_a_second',
    25.0,
    'dry_run of a model that writes: vectors of audio that it gets; 25 of Qwen2-Audio.',
    lower_bound=0.0,
)


def leaks(names: Sequence[str]) -> None:
    """See the head of this file."""
    from alm_jax.data.hygiene import leaks as hygiene

    if len(names) not in (1, 2):
        raise ConfigError('leaks takes one or two datasets: leaks TRAIN EVAL --out leaks.txt.')
    data_dir = location.data_dir(_DATA_DIR.value)
    found = hygiene.find(
        *(sources.open_source(name, data_dir) for name in names),
        folder=data_dir / 'fingerprints',
        audio=_AUDIO.value,
        text=_TEXT.value,
        block_text=_BLOCK_TEXT.value,
        workers=_WORKERS.value,
    )
    print(found.text(), end='')
    if not _OUT.value:
        return
    out = pathlib.Path(_OUT.value)
    command = ' '.join(['python -m alm_jax.data leaks', *names])
    options = [f'--{flag.name}' for flag in (_AUDIO, _TEXT, _BLOCK_TEXT) if flag.value]
    found.write(out, made_by=' '.join([command, *options]))
    print(f'\nblocklist: {out} ({len(found.blocked)} ids)\nreport: {hygiene.report_path(out)}')


def inspect(names: Sequence[str]) -> None:
    """See the head of this file."""
    from alm_jax.data.inspection import page

    if len(names) != 1:
        raise ConfigError('inspect takes one dataset: inspect packaged_sounds/tiny:train.')
    parts = _parts(names[0], location.data_dir(_DATA_DIR.value))
    out = pathlib.Path(_OUT.value or 'page.html')
    print(
        'page:',
        page.write(
            parts,
            out,
            title=names[0],
            examples=_N.value,
            seed=_SEED.value,
            workers=_WORKERS.value,
        ),
    )


def _parts(name: str, data_dir: pathlib.Path) -> list[sources.Source]:
    """The source of a name, or of every split that is there when it names none."""
    try:
        return [sources.open_source(name, data_dir)]
    except ConfigError as error:
        if ':' in name:
            raise
        found = []
        for split in _SPLITS:
            with contextlib.suppress(ConfigError):
                found.append(sources.open_source(f'{name}:{split}', data_dir))
        if not found:
            raise error from None
        return found


def dry_run(names: Sequence[str]) -> None:
    """See the head of this file."""
    from alm_jax.data import dry_run as runs

    if names:
        raise ConfigError(f'dry_run takes a --config and no name, not {names[0]!r}.')
    config = flags.FLAGS.config
    if config is None:
        raise ConfigError('give --config FILE[:args], such as configs/clap/tiny.py.')
    if _DATA_DIR.value:
        config.data.dir = _DATA_DIR.value
    print(runs.dry_run(config, _STEPS.value, _VECTORS.value), end='')


_SPLITS = ('train', 'validation', 'test')
_COMMANDS = {'leaks': leaks, 'inspect': inspect, 'dry_run': dry_run}


def main(argv: Sequence[str]) -> None:
    """See the head of this file."""
    if len(argv) < 2:
        raise ConfigError(f'say what to do: {", ".join(_COMMANDS)}. {_EXAMPLE}')
    if argv[1] not in _COMMANDS:
        hint = did_you_mean(argv[1], list(_COMMANDS))
        raise ConfigError(f'there is no command {argv[1]!r}. {hint}')
    _COMMANDS[argv[1]](argv[2:])


_EXAMPLE = 'For example: python -m alm_jax.data inspect packaged_sounds/tiny:train.'

if __name__ == '__main__':
    config_lib.define_config_flag()
    config_lib.run(main)
