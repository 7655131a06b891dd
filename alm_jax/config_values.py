"""What the values of ``alm_jax.config.base`` may be, beside their types.

Here is what a value can be judged by alone, so that no data is opened and nothing compiled before a
wrong one is told. Names are looked up in the tables of what they build, and what depends on several
keys is checked where it is used.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _pair(value: Any) -> bool:
    return len(value) == 2 and all(map(_number, value)) and value[0] <= value[1]


def _regexes(value: Any) -> bool:
    try:
        return all(isinstance(regex, str) and re.compile(regex) for regex in value)
    except re.error:
        return False


def _factors(value: Any) -> bool:
    return all(
        isinstance(pair, tuple | list)
        and len(pair) == 2
        and _regexes(pair[:1])
        and _number(pair[1])
        and pair[1] >= 0
        for pair in value
    )


def _rising(value: Any) -> bool:
    numbers = all(_number(item) and item > 0 for item in value)
    return numbers and all(a < b for a, b in itertools.pairwise(value))


def _schedule(value: Any) -> bool:
    return all(
        isinstance(entry, tuple | list)
        and len(entry) == 2
        and _whole(entry[0], 1)
        and isinstance(entry[1], tuple | list)
        and all(_number(weight) and weight >= 0 for weight in entry[1])
        for entry in value
    )


def _entries(value: Any) -> bool:
    return all(hasattr(entry, 'items') for entry in value)


# What a value must be, in words; the test of it; the keys that it is of.
RULES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    (
        'at least 1',
        lambda value: value >= 1,
        (
            *('steps', 'batch_size', 'micro_batches', 'log_every', 'checkpoint.every'),
            *('checkpoint.keep', 'data.max_clips', 'data.max_windows', 'data.prefetch'),
            *('augment.time_mask_frames', 'augment.freq_mask_bins', 'model.embed_dim'),
            *('task.chunk', 'task.token_chunk', 'bad_numbers.max_in_a_row'),
            'bad_numbers.spike_window',
            *('bad_numbers.max_in_a_row', 'bad_numbers.spike_window'),
        ),
    ),
    ('at least 2', lambda value: value >= 2, ('data.scenes.max_clips',)),
    (
        '0 or more',
        lambda value: value >= 0,
        (
            *('watchdog_seconds', 'data.temperature', 'data.workers', 'data.gain_db'),
            *('data.text.hard_negatives', 'augment.gain_db', 'augment.shift_seconds'),
            *('augment.time_masks', 'augment.freq_masks', 'task.z_loss', 'checkpoint.keep_every'),
            *('bad_numbers.spike_factor', 'bad_numbers.max_rollbacks'),
            *('task.weights.contrastive', 'task.weights.captioning', 'task.weights.matching'),
            *('optimizer.learning_rate', 'optimizer.warmup_steps', 'optimizer.weight_decay'),
            'bad_numbers.max_rollbacks',
        ),
    ),
    (
        'above 0',
        lambda value: value > 0,
        ('front_end.seconds', 'optimizer.eps', 'optimizer.clip_norm'),
    ),
    (
        'above 1, or 0.0 for none',
        lambda value: value == 0 or value > 1,
        ('bad_numbers.spike_factor',),
    ),
    (
        'a share, 0 to 1',
        lambda value: 0 <= value <= 1,
        (
            *('data.max_bad_share', 'data.scenes.share', 'data.scenes.overlay'),
            *('data.noise.share', 'data.reverb.share', 'data.text.keyword_share'),
        ),
    ),
    (
        'from 0 to below 1',
        lambda value: 0 <= value < 1,
        ('model.dropout', 'task.label_smoothing', 'optimizer.b1', 'optimizer.b2'),
    ),
    ('from 0 to 2**32 - 1', lambda value: 0 <= value < 2**32, ('seed',)),
    (
        "'float32' or 'bfloat16'",
        lambda value: value in ('float32', 'bfloat16'),
        ('compute_dtype',),
    ),
    ("'skip' or 'fail'", lambda value: value in ('skip', 'fail'), ('data.on_bad',)),
    ("'stop' or 'go_on'", lambda value: value in ('stop', 'go_on'), ('checkpoint.on_error',)),
    ('(low, high) in dB', _pair, ('data.noise.snr_db',)),
    ('(low, high) in dB, or () for none', lambda v: not v or _pair(v), ('augment.noise_snr_db',)),
    ('rising lengths in seconds, above 0', _rising, ('data.buckets',)),
    (
        'one or more numbers of tokens, each at least 3',
        lambda value: len(value) > 0 and all(_whole(length, 3) for length in value),
        ('text.lengths',),
    ),
    ('regular expressions', _regexes, ('freeze', 'optimizer.no_decay')),
    ("pairs such as ('^text/', 0.1)", _factors, ('optimizer.rates',)),
    ('pairs such as (1000, (0.7, 0.3)): a step and weights', _schedule, ('data.schedule',)),
    ("entries such as {'name': 'packaged_sounds/tiny:train'}", _entries, ('data.train',)),
)


def problems(config: Mapping[str, Any]) -> Iterator[str]:
    """A line for each value that cannot be; the types are those of ``base()`` already."""
    for key, value in _leaves(config, ''):
        if isinstance(value, float) and not math.isfinite(value):
            yield f'config.{key} is {value}; it must be a finite number.'
    for words, fits, keys in RULES:
        for key in keys:
            value = config
            for part in key.split('.'):
                value = value[part]
            if not fits(value):
                yield f'config.{key} is {value!r}; it must be {words}.'
    for part, source in config['init_from'].items():
        if not isinstance(source, str) or not source:
            yield f"config.init_from.{part} is {source!r}; it must be 'packaged:NAME' or a path."
    for axis, size in config['mesh'].items():
        if not isinstance(size, int) or isinstance(size, bool):
            yield f'config.mesh.{axis} is {size!r}; it must be a whole number of devices.'
    for name, entry in config['evals'].items():
        yield from _problems_of_evaluation(f'config.evals.{name}', entry)


def _problems_of_evaluation(where: str, entry: Any) -> Iterator[str]:
    example = "{'evaluator': 'zero_shot', 'data': 'packaged_sounds/tiny:validation'}"
    if not hasattr(entry, 'items'):
        yield f'{where} is {entry!r}; it must be a group such as {example}.'
        return
    for key in ('evaluator', 'data'):
        if key not in entry or not isinstance(entry[key], str):
            yield f'{where} lacks {key}, a text; write it as in {example}.'
    if not _whole(entry.get('every', 0), 0):
        yield f'{where}.every is {entry["every"]!r}; it must be a number of steps, 0 or more.'


def _leaves(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if hasattr(value, 'items'):
            yield from _leaves(value, f'{prefix}{key}.')
        else:
            yield prefix + key, value
