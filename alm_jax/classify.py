"""Scores of labels over time, zero-shot, as a table and a picture.

python -m alm_jax.classify FILE --labels "dog,siren,rain" --workdir runs/tiny

The file is cut into windows that slide by ``--hop`` seconds. A score is the share of a label among
the labels given: a softmax of the cosines times the model's logit scale. It says which of these
labels fits best, not whether any does.
"""

import os
import pathlib

import matplotlib
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from alm_jax import config as config_lib
from alm_jax.audio import decode, log_mel, presets, resample, windows
from alm_jax.config import ConfigError
from alm_jax.evals import prompts
from alm_jax.evals.metrics.retrieval import similarity
from alm_jax.load import Model, load_towers

_SHORTEST_WINDOW = 0.25  # seconds: below it there is hardly a frame to go by


def classify(
    model: Model, waveform: np.ndarray, rate: int, labels: list[str], window: float, hop: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of ``labels`` over time.

    Args:
      model: a loaded run.
      waveform: mono [n], int16 or float32 in [-1, 1].
      rate: Hz.
      labels: at least two.
      window, hop: seconds.

    Returns:
      (float64 [w, 2]: start and end of each window in seconds, float64 [w, labels]: rows sum to 1).

    Raises:
      ConfigError: fewer than two labels, a label twice, or a window or hop that cannot be.
    """
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(labels):
        raise ConfigError(f'--labels {",".join(labels)!r}: give two or more different labels.')
    longest = model.predictors.window_samples / model.sampling_rate
    if not _SHORTEST_WINDOW <= window <= longest:
        raise ConfigError(
            f'--window {window}: the model takes {_SHORTEST_WINDOW} to {longest:g} seconds.'
        )
    if not 0.01 <= hop <= window:
        raise ConfigError(f'--hop {hop} must be from 0.01 seconds to the window, {window:g}.')
    spans = windows.sliding(len(waveform), round(window * rate), max(1, round(hop * rate)))
    audio = model.embed_audio([waveform[a:b] for a, b in spans], sampling_rate=rate)
    text = prompts.class_embeddings(model.embed_text, labels, 'sound')
    logits = model.logit_scale * similarity(audio, text)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.array(spans) / rate, shares / shares.sum(axis=1, keepdims=True)


def picture(
    model: Model,
    waveform: np.ndarray,
    rate: int,
    labels: list[str],
    times: np.ndarray,
    scores: np.ndarray,
    out: str | os.PathLike,
) -> None:
    """A PNG: log-mel spectrogram above, scores below, on one time axis."""
    front_end = presets.PRESETS[model.config.front_end.preset]
    at_rate = resample.resample(waveform, rate, front_end.sampling_rate).astype(np.float32)
    mel = log_mel.log_mel(at_rate[None], front_end)[0]
    seconds = len(waveform) / rate
    figure = Figure(figsize=(10, 3.5 + 0.35 * len(labels)), layout='constrained')
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.5, 0.5 + 0.35 * len(labels)])
    above.imshow(mel.T, origin='lower', aspect='auto', extent=(0, seconds, 0, mel.shape[1]))
    above.set_ylabel('mel band')
    # Windows overlap: each colours the part nearest to its centre.
    centres = times.mean(axis=1)
    edges = np.concatenate([[0], (centres[1:] + centres[:-1]) / 2, [seconds]])
    colours = below.pcolormesh(
        edges, np.arange(len(labels) + 1), scores.T, vmin=0, vmax=1, cmap='magma'
    )
    below.set_yticks(np.arange(len(labels)) + 0.5, labels)
    below.invert_yaxis()
    below.set_xlabel('seconds')
    figure.colorbar(colours, ax=below, label='share')
    figure.savefig(out, dpi=120)


def main(argv: list[str]) -> None:
    """See the head of this file."""
    given = flags.FLAGS
    if len(argv) != 2:
        raise ConfigError(
            'give one audio file: python -m alm_jax.classify FILE --labels "dog,rain".'
        )
    if not given.workdir:
        raise ConfigError('give --workdir RUN: the trained model.')
    labels = [label.strip() for label in given.labels]
    waveform, rate = decode.decode(argv[1])
    model = load_towers(given.workdir, given.step)
    longest = model.predictors.window_samples / model.sampling_rate
    window = given.window or min(2.0, longest)
    times, scores = classify(model, waveform, rate, labels, window, given.hop or window / 2)
    print('  '.join(['    seconds   ', *(f'{label:>10}' for label in labels), ' best']))
    for (start, end), row in zip(times, scores, strict=True):
        shown = '  '.join(f'{value:>{max(10, len(label))}.3f}' for value, label in zip(row, labels))
        print(f'{start:6.2f} - {end:6.2f}  {shown}   {labels[int(row.argmax())]}')
    out = given.out or f'{pathlib.Path(argv[1]).stem}_labels.png'
    picture(model, waveform, rate, labels, times, scores, out)
    print(f'picture: {out}')


if __name__ == '__main__':
    matplotlib.use('Agg')
    flags.DEFINE_list('labels', [], 'Labels, separated by commas.')
    flags.DEFINE_string('workdir', '', 'The run whose model classifies.')
    flags.DEFINE_integer('step', None, 'Which checkpoint; the newest complete one when not given.')
    flags.DEFINE_float('window', 0, 'Seconds a window; default 2, at most what the model takes.')
    flags.DEFINE_float('hop', 0, 'Seconds between windows; default half a window.')
    flags.DEFINE_string('out', '', 'The picture; default FILE_labels.png in the current folder.')
    config_lib.run(main)
