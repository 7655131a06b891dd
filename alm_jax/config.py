"""Experiment configs: one ml_collections file an experiment, checked before any minute is spent.

``base()`` is the whole vocabulary: every key an experiment may set, with its default. A config file
starts from it, and ``validate`` names the nearest valid key when one is misspelt. Parts that are
built by name (towers, evaluators, data sources) are open dictionaries here and are checked against
the signature of what they build, by ``call_with``.
"""

import dataclasses
import difflib
import importlib.util
import inspect
import json
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from alm_jax import config_values

# Keys whose content is checked by the code that builds it (call_with), not against base().
OPEN = frozenset(
    {
        *('model.audio', 'model.connector', 'model.decoder', 'model.text'),
        *('init_from', 'mesh', 'evals', 'data.train'),
    }
)


# (regex, spec), see alm_jax.training.param_sharding. One table for all families, whose layers share
# their names: columns of the first product of a pair and rows of the second go over 'tensor', the
# other dimension over 'fsdp', and vocabularies, whose sizes divide by little, over their features.
PARAM_RULES = (
    (r'attn/(query|key|value)/kernel$', ('fsdp', 'tensor')),
    (r'attn/out/kernel$', ('tensor', 'fsdp')),
    (r'mlp\w*/(up|gate)/kernel$', ('fsdp', 'tensor')),
    (r'mlp\w*/down/kernel$', ('tensor', 'fsdp')),
    (r'(word|token)_embedding/embedding$', (None, 'fsdp')),
    (r'lm_head/kernel$', ('fsdp', None)),
)
# name of an axis of activations -> mesh axes, see alm_jax.models.layers.placement
ACTIVATION_RULES = (
    ('batch', ('data', 'fsdp')),
    ('length', 'sequence'),
    ('heads', 'tensor'),
    ('mlp', 'tensor'),
)


class ConfigError(ValueError):
    """A mistake the user can mend. Binaries print it without a traceback and exit with its code."""

    exit_code = 2


def base() -> ConfigDict:
    """Every key an experiment may set, with its default."""
    config = ConfigDict()
    config.name = ''
    config.seed = 0
    config.steps = 1000  # updates
    config.batch_size = 64  # rows a step over all devices and hosts
    config.micro_batches = 1  # parts of a batch, one after another, for less memory; same gradient
    # What the experiment is planned for and ``compile`` takes, such as 'v5e:16x16'; '' is nothing.
    config.topology = ''
    config.compute_dtype = 'float32'  # or 'bfloat16'; parameters are float32 unless frozen
    # axis -> size; one may be -1, which takes the rest. dcn is the number of slices that data goes
    # across; -1 is as many as there are.
    config.mesh = ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1, 'sequence': 1, 'dcn': -1})
    config.sharding = ConfigDict()
    config.sharding.params = PARAM_RULES  # first match wins; no match is a copy on every device
    config.sharding.activations = ACTIVATION_RULES
    config.remat = 'none'  # 'block', 'dots', 'offload': what towers recompute in the backward pass
    config.log_every = 10  # steps
    # Without a completed step for so long, every process says where it is; 0 is off.
    config.watchdog_seconds = 1800.0
    config.profile = ()  # (first step, last step) to write a trace of, under workdir/profile

    config.data = ConfigDict()
    config.data.dir = ''  # '' is $ALM_JAX_DATA, else ~/.cache/alm_jax
    # each: {'name': 'packaged_sounds/tiny:train', 'weight': 1.0, 'where': {'kind': ['sound']},
    # 'blocklists': ('leaks.txt',)}
    config.data.train = ()
    config.data.temperature = 0.0  # T above 0: shares go as weight * records ** (1 / T)
    config.data.schedule = ()  # ((data_step, (weight of each dataset, ...)), ...) from there on
    config.data.buckets = ()  # window lengths in seconds; () is front_end.seconds alone
    config.data.max_clips = 1  # of a record with several; above 1, a row is [clips, samples]
    # Of a clip, with text.dialogue: longer audio takes several of the max_clips places of a row.
    config.data.max_windows = 1
    # Rows hold several short clips, planned from their lengths; with text.dialogue several
    # dialogues of at most max_clips clips, planned from their tokens.
    config.data.pack = False
    config.data.workers = 2  # decode processes of the loader; 0 is none
    config.data.prefetch = 4  # batches made ahead of the step
    config.data.on_bad = 'skip'  # or 'fail': a record whose audio or text cannot be used
    config.data.max_bad_share = 0.01  # of the records read; above it the run stops
    config.data.allow_leaks = False  # train on records of the sets under config.evals
    config.data.scenes = ConfigDict()  # short clips joined and mixed, with joined captions
    config.data.scenes.share = 0.0  # of the rows that are scenes
    config.data.scenes.max_clips = 3
    config.data.scenes.overlay = 0.3  # probability that clips are mixed instead of joined
    config.data.noise = ConfigDict()  # recordings mixed under a row's audio, on the host
    config.data.noise.name = ''  # a dataset, as in config.data.train
    config.data.noise.share = 0.0  # of the rows
    config.data.noise.snr_db = (5.0, 20.0)  # (low, high)
    config.data.reverb = ConfigDict()  # convolution with recorded impulse responses, on the host
    config.data.reverb.name = ''
    config.data.reverb.share = 0.0
    config.data.gain_db = 0.0  # uniform in +-, on the host, before noise
    config.data.text = ConfigDict()
    config.data.text.keyword_share = 0.0  # of the rows whose caption is made from the tags
    config.data.text.hard_negatives = 0  # captions a row that differ in order, attribute or noun
    config.data.text.instruction = False  # a question and its answer instead of a caption
    # For models that write: the format of rows, 'chat' (the tokenizer's own template), 'plain',
    # 'ltu', 'salmonn', 'qwen_audio' or 'audio_flamingo3'; see alm_jax.text.dialogue.
    config.data.text.dialogue = ''

    config.front_end = ConfigDict()
    config.front_end.preset = 'yamnet'  # see alm_jax.audio.presets
    config.front_end.seconds = 5.0  # window length
    config.front_end.on = 'device'  # or 'host'

    config.augment = ConfigDict()  # on the device, keyed
    config.augment.gain_db = 0.0  # uniform in +-
    config.augment.shift_seconds = 0.0  # uniform in +-
    config.augment.noise_snr_db = ()  # (low, high); () is off
    config.augment.time_masks = 0
    config.augment.time_mask_frames = 20
    config.augment.freq_masks = 0
    config.augment.freq_mask_bins = 8

    config.text = ConfigDict()
    config.text.tokenizer = 'packaged:minilm'  # or a path to tokenizer.json or its folder
    # Tokens, smallest that fits; longer texts are cut. A dialogue has all its tokens and vectors of
    # audio in the longest, and a record whose dialogue is longer is skipped.
    config.text.lengths = (32,)

    config.model = ConfigDict()
    config.model.family = 'two_tower'
    config.model.audio = ConfigDict({'name': 'spectrogram_transformer', 'variant': 'mu'})
    config.model.text = ConfigDict({'name': 'bert', 'variant': 'mu'})
    config.model.embed_dim = 256
    config.model.projection = 'linear'  # or 'residual' (MS-CLAP), 'mlp' (LAION-CLAP)
    config.model.dropout = 0.0
    config.model.connector = ConfigDict({'name': 'linear'})  # between two heads
    # Beside two towers, of captioning_towers.
    config.model.decoder = ConfigDict({'width': 256, 'depth': 4, 'heads': 4, 'vocabulary': 30522})
    config.model.attention = 'causal'  # or 'prefix': what precedes an answer sees itself both ways

    config.task = ConfigDict()
    config.task.name = 'contrastive'
    config.task.objective = 'infonce'  # or 'multi_positive', 'sigmoid'
    config.task.form = 'dense'  # or 'chunked', 'ring': without the batch x batch matrix
    config.task.chunk = 1024  # rows of a block of those forms
    config.task.token_chunk = 64  # positions of each row whose logits exist at a time
    config.task.label_smoothing = 0.0  # of tokens
    config.task.z_loss = 0.0  # weight of (log Z)^2 of tokens
    # Of the losses of contrastive_captioning; 0 leaves one out.
    config.task.weights = ConfigDict({'contrastive': 1.0, 'captioning': 1.0, 'matching': 0.0})

    config.init_from = ConfigDict()  # part of the model -> 'packaged:NAME' or a checkpoint path
    config.resume = ''  # a checkpoint or workdir to continue when this workdir has none
    config.freeze = ()  # regexes over parameter names

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = 'cosine'  # or 'constant', 'linear'
    config.optimizer.warmup_steps = 0
    config.optimizer.weight_decay = 0.01
    config.optimizer.no_decay = (r'(bias|scale|logit_scale|logit_bias)$',)
    config.optimizer.rates = ()  # ((regex, factor), ...): first match scales the learning rate
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.98
    config.optimizer.eps = 1e-6
    config.optimizer.clip_norm = 1.0

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 500  # steps; the last step is always saved
    config.checkpoint.keep = 2  # the last so many, and beside them:
    config.checkpoint.keep_every = 0  # steps that are a multiple of it; 0 is none
    # That with the highest value of e.g. 'zero_shot_validation/top1', or lowest of '-train/loss'.
    config.checkpoint.best = ''
    config.checkpoint.on_error = 'stop'  # or 'go_on': train on when one cannot be saved

    # Updates whose loss or gradient is not finite are skipped; losses may be watched too.
    config.bad_numbers = ConfigDict()
    config.bad_numbers.max_in_a_row = 10  # skipped updates; then the run stops
    config.bad_numbers.spike_factor = 0.0  # a spike is a loss above this times the median; 0 is off
    config.bad_numbers.spike_window = 50  # losses before it, of which that is the median
    # Go back to the last checkpoint, and leave out the batches from there to the spike.
    config.bad_numbers.rollback = False
    config.bad_numbers.max_rollbacks = 5  # of a run; then it stops

    # What is trained one after another: ({'name': 'warm_up', 'steps': 200, 'freeze': ('^text/',),
    # 'optimizer.learning_rate': 1e-3, 'data.train': (...)}, ...). A stage is this config with its
    # own values for some keys, see alm_jax.training.stages; config.steps is the sum of their steps.
    config.stages = ()

    # name -> {'evaluator': 'zero_shot', 'every': 200, 'data': 'packaged_sounds/tiny:validation'}
    config.evals = ConfigDict()
    return config


def did_you_mean(word: str, valid: Sequence[str]) -> str:
    """A hint for an error message: the nearest valid word, or the whole list when none is near."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    if near:
        return f'Did you mean {near[0]!r}?'
    return 'Valid: ' + ', '.join(sorted(valid)) + '.'


def validate(config: ConfigDict) -> None:
    """Raises ConfigError for a key that ``base()`` lacks, another type, or an impossible value."""
    _validate(config, base(), prefix='')
    for problem in config_values.problems(config):
        raise ConfigError(problem)
    _validate_profile(config)


def _validate_profile(config: ConfigDict) -> None:
    steps = tuple(config.profile)
    whole = all(isinstance(step, int) for step in steps)
    if steps and not (len(steps) == 2 and whole and 1 <= steps[0] <= steps[1] <= config.steps):
        raise ConfigError(
            f'config.profile is {steps}; give the first and the last step to trace, from 1 to '
            f'config.steps = {config.steps}, such as (10, 13), or () for none.'
        )


def _validate(config: Mapping, reference: Mapping, prefix: str) -> None:
    for key in config:
        path = prefix + key
        if key not in reference:
            raise ConfigError(f'config.{path} is not a key. {did_you_mean(key, list(reference))}')
        value, default = config[key], reference[key]
        if isinstance(default, ConfigDict):
            if not isinstance(value, ConfigDict):
                raise ConfigError(f'config.{path} must be a group of keys, not {value!r:.200}.')
            if path not in OPEN:
                _validate(value, default, path + '.')
        elif not _same_type(value, default):
            raise ConfigError(
                f'config.{path} is {value!r:.200} ({type(value).__name__}); '
                f'expected {type(default).__name__}, such as {default!r}.'
            )
    missing = [prefix + key for key in reference if key not in config]
    if missing:
        raise ConfigError(f'config lacks {", ".join(missing)}; start from alm_jax.config.base().')


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, tuple):
        return isinstance(value, tuple | list)
    return isinstance(value, type(default))


def call_with(function: Callable, options: Mapping[str, Any], *, where: str, **fixed: Any) -> Any:
    """``function(**fixed, **options)``; an unknown option is a ConfigError that names the nearest.

    Args:
      function: a class or function whose keyword parameters are the valid options.
      options: the user's choices; the key 'name' is not passed on.
      where: the config path of ``options``, for messages ('model.audio').
      **fixed: arguments the caller sets; not open to the user.
    """
    given = {key: value for key, value in dict(options).items() if key != 'name'}
    valid = set(inspect.signature(function).parameters) - set(fixed) - {'parent', 'name'}
    for key in given:
        if key not in valid:
            raise ConfigError(
                f'config.{where}.{key} is not a key. {did_you_mean(key, list(valid))}'
            )
    return function(**fixed, **given)


def choose(table: Mapping[str, Any], name: str, *, where: str) -> Any:
    """``table[name]``, or a ConfigError that names the nearest entry."""
    if name not in table:
        raise ConfigError(f'config.{where} is {name!r}. {did_you_mean(str(name), list(table))}')
    return table[name]


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Reads the part after the colon of 'file.py:smoke,batch_size=64'.

    A bare word sets that default to True; ``key=value`` converts the value to the default's type.
    """
    parsed = ConfigDict(defaults)
    for item in filter(None, (arg or '').split(',')):
        key, equals, text = item.partition('=')
        if key not in defaults:
            raise ConfigError(
                f'config argument {key!r} is unknown. {did_you_mean(key, list(defaults))}'
            )
        kind = type(defaults[key])
        if not equals:
            if kind is not bool:
                raise ConfigError(
                    f'config argument {key!r} needs a value: {key}={defaults[key]!r}.'
                )
            parsed[key] = True
        elif kind is bool:
            parsed[key] = text.lower() in ('1', 'true', 'yes')
        else:
            try:
                parsed[key] = kind(text)
            except ValueError as error:
                raise ConfigError(
                    f'config argument {key}={text!r} is not a {kind.__name__}.'
                ) from error
    return parsed


def experiment(path: str | os.PathLike) -> types.ModuleType:
    """The config file as a module, so that an experiment can start from another's get_config."""
    spec = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(value: Any) -> Any:
    """ConfigDicts, tuples and dataclasses as JSON types."""
    if isinstance(value, ConfigDict | Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return plain(dataclasses.asdict(value))
    return value


def to_json(config: ConfigDict) -> str:
    """A config as JSON text; ``from_json`` gives it back."""
    return json.dumps(plain(config), indent=2, sort_keys=True) + '\n'


def from_json(text: str | bytes, name: str = 'config.json') -> ConfigDict:
    """The config that ``to_json`` wrote. Lists become tuples; nothing is executed.

    Keys that came into ``base()`` after it was written get their default there, which is what the
    code did before there was a choice.

    Raises:
      ConfigError: not JSON of a config; names the file ``name``, or the key.
    """
    from alm_jax import json_text  # which needs ConfigError

    content = json_text.parse_object(text, name)
    try:
        config = ConfigDict(content)
    except (ValueError, AttributeError) as error:  # a key with a dot, or that is a method's name
        raise ConfigError(f'{name}: {error}') from error
    _tuples(config)
    _fill(config, base(), prefix='')
    validate(config)
    return config


def _fill(config: ConfigDict, reference: ConfigDict, prefix: str) -> None:
    for key, default in reference.items():
        path = prefix + key
        if key not in config:
            config[key] = default
        elif path not in OPEN and all(isinstance(c, ConfigDict) for c in (config[key], default)):
            _fill(config[key], default, path + '.')


def _tuples(config: ConfigDict) -> None:
    def frozen(value):
        if isinstance(value, list | tuple):
            return tuple(frozen(item) for item in value)
        return value

    for key, value in config.items():
        if isinstance(value, ConfigDict):
            _tuples(value)
        else:
            with config.ignore_type():
                config[key] = frozen(value)


def define_config_flag() -> flags.FlagHolder:
    """Declares --config FILE[:args] and its overrides --config.key=value."""
    return config_flags.DEFINE_config_file(
        'config', None, 'Experiment file, such as configs/clap/tiny.py:smoke.'
    )


def run(main: Callable[[list[str]], int | None]) -> None:
    """Runs a binary: a mistake the user can mend is printed on one screen, with exit code 2.

    Ctrl-C exits with 130 and no traceback. Anything else is a defect and keeps its traceback.
    """

    def guarded(argv: list[str]) -> int | None:
        if not flags.FLAGS['verbosity'].present:
            logging.set_verbosity(logging.WARNING)  # jax tells of every backend it looks for
        try:
            return main(argv)
        except ConfigError as error:
            return _fail(error)
        except KeyboardInterrupt:
            print('\nInterrupted.', file=sys.stderr)
            return 130

    def parse(argv: list[str]) -> list[str]:
        try:
            _load_config_file(argv)
            return flags.FLAGS(argv)
        except (AttributeError, KeyError) as error:  # a last key, or a group, that there is not
            keys = [arg.split('=')[0].lstrip('-') for arg in argv if arg.startswith('--config.')]
            sys.exit(_fail(ConfigError(_misspelt_override(keys) or _first_line(error))))
        except (ConfigError, flags.Error) as error:
            sys.exit(_fail(error))

    app.run(guarded, flags_parser=parse)


def _fail(error: Exception) -> int:
    print(f'error: {error}', file=sys.stderr)
    return getattr(error, 'exit_code', 2)


def _first_line(error: BaseException) -> str:
    """ml_collections nests the message in a KeyError inside the AttributeError."""
    message = error.args[0] if error.args else ''
    return _first_line(message) if isinstance(message, BaseException) else ' '.join(message.split())


def _load_config_file(argv: Sequence[str]) -> None:
    """Loads --config once before the flag does, whose own failure hides the reason."""
    after = [argv[i + 1] for i, arg in enumerate(argv[:-1]) if arg == '--config']
    given = after + [arg.partition('=')[2] for arg in argv if arg.startswith('--config=')]
    for value in given:
        path, _, arg = value.partition(':')
        if not os.path.isfile(path):
            raise ConfigError(f'config file {path!r} does not exist. {_sibling_configs(path)}')
        module = experiment(path)
        if not hasattr(module, 'get_config'):
            raise ConfigError(f'config file {path!r} defines no get_config(arg=None).')
        module.get_config(arg or None)


def _sibling_configs(path: str) -> str:
    folder = os.path.dirname(path) or '.'
    if not os.path.isdir(folder):
        return f'Neither does its folder {folder!r}.'
    names = [name for name in sorted(os.listdir(folder)) if name.endswith('.py')]
    return did_you_mean(os.path.basename(path), names) if names else ''


def _misspelt_override(keys: Sequence[str]) -> str:
    """The message for the first '--config.a.b' whose path is not in ``base()``."""
    for key in keys:
        here, path = base(), 'config'
        for part in key.split('.')[1:]:
            if not isinstance(here, ConfigDict) or path.removeprefix('config.') in OPEN:
                break
            if part not in here:
                return f'{path}.{part} is not a key. {did_you_mean(part, list(here))}'
            here, path = here[part], f'{path}.{part}'
    return ''
