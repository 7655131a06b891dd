"""Looks into checkpoints, converts and compares them.

  python -m alm_jax.interop inspect SRC          # family, sizes, tensors, what does not match
  python -m alm_jax.interop convert SRC DST      # a Hugging Face folder of safetensors
  python -m alm_jax.interop diff A B             # tensors, then intermediates on equal inputs

SRC, A and B are a folder with config.json and safetensors, a .gguf file, a CTranslate2 Whisper
folder, a TensorFlow SavedModel, or a run's workdir or checkpoint. ``diff`` exits with 0 when
nothing differs and with 1 otherwise; a mistake in what is given exits with 2.
"""

from collections.abc import Sequence

from absl import flags

from alm_jax import config as config_lib
from alm_jax.config import ConfigError, did_you_mean

_TOLERANCE = flags.DEFINE_float(
    'tolerance', 0.0, 'diff: max|a-b| / max|b| that still counts as equal.', lower_bound=0.0
)
_INTERMEDIATES = flags.DEFINE_bool('intermediates', True, 'diff: run both models.')


def inspect(paths: Sequence[str]) -> int:
    """See the head of this file."""
    from alm_jax.interop import inspection, sources

    (path,) = _given(paths, 'SRC')
    print(inspection.table(sources.open_source(path)), end='')
    return 0


def convert(paths: Sequence[str]) -> int:
    """See the head of this file."""
    from alm_jax.interop import convert as conversion

    src, dst = _given(paths, 'SRC', 'DST')
    print('written:', conversion.convert(src, dst))
    return 0


def diff(paths: Sequence[str]) -> int:
    """See the head of this file."""
    from alm_jax.interop import diff as differences
    from alm_jax.interop import sources

    a, b = map(sources.open_source, _given(paths, 'A', 'B'))
    report = differences.diff(a, b, tolerance=_TOLERANCE.value, run=_INTERMEDIATES.value)
    print(report.text(), end='')
    return 0 if report.equal else 1


_COMMANDS = {'inspect': inspect, 'convert': convert, 'diff': diff}


def _given(paths: Sequence[str], *what: str) -> Sequence[str]:
    if len(paths) != len(what):
        raise ConfigError(f'give {" and ".join(what)}, not {len(paths)} paths.')
    return paths


def main(argv: Sequence[str]) -> int:
    """See the head of this file."""
    if len(argv) < 2:
        raise ConfigError(
            f'say what to do: {", ".join(_COMMANDS)}. For example: '
            'python -m alm_jax.interop inspect whisper-tiny.'
        )
    if argv[1] not in _COMMANDS:
        hint = did_you_mean(argv[1], list(_COMMANDS))
        raise ConfigError(f'there is no command {argv[1]!r}. {hint}')
    return _COMMANDS[argv[1]](argv[2:])


if __name__ == '__main__':
    config_lib.run(main)
