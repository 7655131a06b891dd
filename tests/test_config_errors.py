"""Mistakes in a config: each is told by its key before anything is compiled or weights are read."""

import functools
import time

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax import config_values, run_checks
from alm_jax.config import ConfigError
from alm_jax.train import train
from alm_jax.training import checkpoint

COMPILED = '/jax/core/compile/backend_compile_duration'
SECONDS = 10  # of processors; a wait for other programs is not the run's


def small():
    config = config_lib.base()
    config.steps = 12
    config.batch_size = 4
    config.front_end.seconds = 1.0
    config.data.train = ({'name': 'packaged_sounds/tiny:train'},)
    config.model.embed_dim = 32
    return config


def stage(**values):
    return ({'name': 'one', 'steps': 4}, {'name': 'two', 'steps': 8, **values})


def evaluation(**values):
    return {'x': {'evaluator': 'zero_shot', 'data': 'packaged_sounds/tiny:validation', **values}}


VALIDATION = 'packaged_sounds/tiny:validation'
MISTAKES = {
    # a misspelt key, another type
    'stepz': (3, 'config.stepz is not a key', "Did you mean 'steps'?"),
    'optimizer.learning_rte': (1.0, 'config.optimizer.learning_rte', "'learning_rate'"),
    'batch_size': ('8', "config.batch_size is '8' (str); expected int"),
    'model.audio': (3, 'config.model.audio must be a group of keys, not 3'),
    'evals': (('zero_shot',), 'config.evals must be a group of keys'),
    'data.train': ({'name': 'x'}, 'config.data.train is', 'expected tuple'),
    # numbers out of range
    'optimizer.learning_rate': (-1e-3, 'config.optimizer.learning_rate is -0.001', '0 or more'),
    'optimizer.weight_decay': (float('nan'), 'config.optimizer.weight_decay is nan', 'finite'),
    'optimizer.warmup_steps': (12, 'config.optimizer.warmup_steps is 12', 'config.steps = 12'),
    'optimizer.b2': (1.0, 'config.optimizer.b2 is 1.0', 'from 0 to below 1'),
    'optimizer.clip_norm': (0.0, 'config.optimizer.clip_norm is 0.0', 'above 0'),
    'optimizer.rates': ((('^text/', -1),), 'config.optimizer.rates', "such as ('^text/', 0.1)"),
    'checkpoint.every': (0, 'config.checkpoint.every is 0; it must be at least 1'),
    'checkpoint.keep': (0, 'config.checkpoint.keep is 0; it must be at least 1'),
    'checkpoint.on_error': ('wait', "config.checkpoint.on_error is 'wait'", "'stop' or 'go_on'"),
    'data.workers': (-1, 'config.data.workers is -1; it must be 0 or more'),
    'data.max_bad_share': (1.5, 'config.data.max_bad_share is 1.5', 'a share, 0 to 1'),
    'data.noise.snr_db': ((20.0, 5.0), 'config.data.noise.snr_db', '(low, high) in dB'),
    'data.buckets': ((2.0, 1.0), 'config.data.buckets', 'rising lengths'),
    'data.schedule': (((0, (1.0,)),), 'config.data.schedule', 'a step and weights'),
    'text.lengths': ((), 'config.text.lengths', 'each at least 3'),
    'front_end.seconds': (0.001, 'config.front_end.seconds is 0.001', 'must hold'),
    'seed': (-1, 'config.seed is -1', 'from 0 to 2**32 - 1'),
    # words that are none
    'compute_dtype': ('float23', "config.compute_dtype is 'float23'", "'float32' or 'bfloat16'"),
    'data.on_bad': ('ignore', "config.data.on_bad is 'ignore'", "'skip' or 'fail'"),
    'front_end.preset': ('yamnett', "config.front_end.preset is 'yamnett'", "mean 'yamnet'?"),
    'front_end.on': ('hots', "config.front_end.on is 'hots'", "'device' or 'host'"),
    'task.name': ('contrastiv', "config.task.name is 'contrastiv'", "mean 'contrastive'?"),
    'task.objective': ('infonse', "config.task.objective is 'infonse'", "mean 'infonce'?"),
    'task.form': ('chunkd', "config.task.form is 'chunkd'", "mean 'chunked'?"),
    'model.family': ('two_towers', "config.model.family is 'two_towers'", "mean 'two_tower'?"),
    'model.text': ({'name': 'brt'}, "config.model.text.name is 'brt'", "mean 'bert'?"),
    'model.projection': ('linaer', "config.model.projection is 'linaer'", "mean 'linear'?"),
    'optimizer.schedule': ('cosin', "config.optimizer.schedule is 'cosin'", "mean 'cosine'?"),
    'remat': ('blocks', "remat is 'blocks'", "mean 'block'?"),
    'freeze': (('^(text',), 'config.freeze', 'regular expressions'),
    # meshes and batches
    'mesh': ({'data': 3}, "config.mesh is {'data': 3}", 'does not fit'),
    'mesh.fsdp': (1.5, 'config.mesh.fsdp is 1.5', 'whole number'),
    'micro_batches': (3, 'config.micro_batches is 3', 'Use 2'),
    # files
    'resume': ('/nowhere/run', 'config.resume: /nowhere/run holds no complete checkpoint'),
    'init_from': ({'text': '/nowhere/bert'}, "config.init_from.text is '/nowhere/bert'", 'exist'),
    'text.tokenizer': ('/nowhere/tok', "config.text.tokenizer is '/nowhere/tok'", 'not exist'),
    'data.dir': ('/nowhere', "'packaged_sounds/tiny' is not prepared in /nowhere", 'alm_jax.prep'),
}
MORE = (
    ({'init_from': {'text': 'packaged:minilmm'}}, "init_from.text is 'minilmm'", "'minilm'?"),
    ({'init_from': {'txt': 'packaged:minilm'}}, "config.init_from has 'txt'", "mean 'text'?"),
    ({'text.tokenizer': 'packaged:mini'}, "config.text.tokenizer is 'mini'", 'minilm'),
    ({'data.train': ({'name': 'packaged_sounds/tini:train'},)}, 'packaged_sounds/tini', 'tiny'),
    ({'data.train': ({'nam': 'x'},)}, "dataset entry key 'nam' is unknown", "mean 'name'?"),
    ({'data.train': ('packaged_sounds/tiny:train',)}, 'config.data.train', "{'name': "),
    ({'data.noise.share': 0.5}, 'noise.share is 0.5', 'noise.name is empty'),
    ({'data.text.instruction': True}, 'config.data.text.instruction makes batches', 'not read'),
    ({'data.pack': True, 'data.scenes.share': 0.5}, 'data.pack and config.data.scenes.share'),
    ({'freeze': ('^txt/',)}, "config.freeze: the regex '^txt/' matches no parameter"),
    ({'evals': evaluation(evaluator='zero_shoot')}, 'config.evals.x.evaluator', "'zero_shot'?"),
    ({'evals': evaluation(data='packaged_sounds/tiny:vlidation')}, 'vlidation', 'validation'),
    ({'evals': evaluation(every=-1)}, 'config.evals.x.every is -1', '0 or more'),
    ({'evals': evaluation(templtes='x')}, 'config.evals.x.templtes is not', "'templates'?"),
    ({'evals': {'x': {'data': VALIDATION}}}, 'config.evals.x lacks evaluator', 'zero_shot'),
    ({'evals': {'x': {'evaluator': 'zero_shot'}}}, 'config.evals.x lacks data', VALIDATION),
    ({'stages': stage(batch_sise=2)}, "config.stages[1] ('two'): batch_sise", "'batch_size'?"),
    ({'stages': stage(batch_size=0)}, "stage 'two': config.batch_size is 0", 'at least 1'),
    ({'stages': stage(seed=1)}, 'seed is the same in all stages'),
    ({'stages': stage(steps=9)}, 'config.steps is 12', 'sum to 13'),
    ({'stages': ('warm_up',)}, "config.stages[0] is 'warm_up'", "{'name': "),
    # more than any disk has
    ({'model.embed_dim': 10**10}, 'the disk of workdir', 'for one checkpoint', 'config.checkpoint'),
    (
        {'steps': 10**9, 'checkpoint.every': 1, 'checkpoint.keep': 10**9},
        'too little for 1000000000 checkpoints of',
        'keep fewer',
    ),
)
# What only the model's shapes or the data itself can tell; all else is told before data is opened.
NEEDS_SHAPES = {
    *('optimizer.warmup_steps', 'optimizer.schedule', 'front_end.seconds', 'front_end.on', 'remat'),
    *('task.objective', 'task.form', 'model.family', 'model.text', 'model.projection'),
    *('model.embed_dim', 'steps', 'freeze', 'data.text.instruction'),
}
NEEDS_SHAPES_FOR = ("config.init_from has 'txt'", 'vlidation', 'config.evals.x.templtes is not')
CASES = [({key: value}, *expected) for key, (value, *expected) in MISTAKES.items()] + list(MORE)


def set_key(config, key, value):
    *groups, last = key.split('.')
    with config.ignore_type(), config.unlocked():
        group = functools.reduce(lambda group, part: group[part], groups, config)
        group[last] = ConfigDict(value) if isinstance(value, dict) else value


@pytest.fixture
def compiled():
    """What is compiled during a test; made only then."""
    found = []

    def listen(event, seconds, **_):
        if event == COMPILED:
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize('case', CASES, ids=lambda case: ' '.join(case[0]))
def test_a_mistake_is_told_before_anything_is_compiled(
    case, tmp_path, packaged_tiny, compiled, capsys
):
    values, *expected = case
    config = small()
    config.data.dir = str(packaged_tiny)
    for key, value in values.items():
        set_key(config, key, value)
    began = time.process_time()
    with pytest.raises(ConfigError) as told:
        train(config, tmp_path)
    assert time.process_time() - began < SECONDS
    for text in expected:
        assert text in str(told.value)
    assert len(str(told.value).splitlines()) <= 3
    assert not compiled
    if not NEEDS_SHAPES.intersection(values) and expected[0] not in NEEDS_SHAPES_FOR:
        assert 'data: ' not in capsys.readouterr().err  # which tells that it is opened
    assert not (tmp_path / 'metrics.jsonl').exists()


def test_the_listener_hears_what_is_compiled(compiled):
    jax.jit(lambda x: x * 3 + len(compiled))(1.5).block_until_ready()
    assert compiled


def keys(config, prefix=''):
    for key, value in config.items():
        yield prefix + key, value
        if isinstance(value, ConfigDict) and prefix + key not in config_lib.OPEN:
            yield from keys(value, f'{prefix}{key}.')


KEYS = dict(keys(config_lib.base()))
LETTERS = 'abcdefghijklmnopqrstuvwxyz_'


@st.composite
def misspelt(draw):
    """A key with a letter lost, added or changed, or two exchanged, and what it should be."""
    key = draw(st.sampled_from(sorted(KEYS)))
    group, dot, last = key.rpartition('.')
    at = draw(st.integers(0, len(last) - 1))
    letter = draw(st.sampled_from(LETTERS))
    swapped = last[:at] + last[at : at + 2][::-1] + last[at + 2 :]
    changed = [last[:at] + letter + last[at + 1 :], last[:at] + letter + last[at:]]
    wrong = draw(st.sampled_from([*changed, swapped, last[:at] + last[at + 1 :]]))
    return group + dot + wrong, key


@given(misspelt())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_misspelt_key_is_named(pair):
    wrong, key = pair
    if wrong in KEYS or wrong.endswith('.') or not wrong:
        return
    config = config_lib.base()
    set_key(config, wrong, KEYS[key])
    with pytest.raises(ConfigError) as told:
        config_lib.validate(config)
    assert f'config.{wrong} is not a key.' in str(told.value)


OTHERS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3)
)
WRONG = st.one_of(OTHERS, st.tuples(OTHERS), st.dictionaries(st.text('ab', min_size=1), OTHERS))


def may_be(value, default):
    if isinstance(default, ConfigDict):
        return isinstance(value, ConfigDict)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


@given(st.sampled_from(sorted(KEYS)), WRONG)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_a_value_of_another_type_is_named(key, value):
    """What is of the type may pass, or it is told that it cannot be: never another error."""
    config = config_lib.base()
    set_key(config, key, value)
    value = functools.reduce(lambda group, part: group[part], key.split('.'), config)  # of a float
    told = ''
    try:
        config_lib.validate(config)
    except ConfigError as error:
        told = str(error)
    assert told or may_be(value, KEYS[key])
    assert not told or key in told


def test_every_number_has_a_range():
    ruled = {key for _, _, keys in config_values.RULES for key in keys}
    numbers = {key for key, value in KEYS.items() if type(value) in (int, float)}
    assert numbers <= ruled
    assert ruled <= set(KEYS)


@pytest.mark.parametrize(
    ('values', 'step', 'existing', 'count'),
    [
        ({}, 0, 0, 3),  # two are kept, and one more is written
        ({}, 0, 2, 1),
        ({}, 0, 7, 1),
        ({'steps': 600}, 0, 0, 2),  # 500 and 600
        ({'steps': 1000}, 900, 1, 1),
        ({}, 5000, 2, 0),
        ({'checkpoint.keep': 5}, 4000, 2, 2),
        ({'checkpoint.keep_every': 1000}, 0, 0, 8),
        ({'checkpoint.keep_every': 750}, 0, 0, 6),  # 1500, 3000, 4500
        ({'checkpoint.best': '-train/loss'}, 0, 0, 4),
        ({'stages': stage(), 'steps': 12}, 0, 0, 3),
    ],
)
def test_how_many_checkpoints_are_to_come(values, step, existing, count):
    config = config_lib.base()
    config.steps = 5000
    for key, value in values.items():
        set_key(config, key, value)
    assert run_checks.checkpoints_to_come(config, step, existing) == count


def test_a_checkpoint_takes_what_is_planned(tiny_run):
    """Of its parameters: moments, which are zero here, are compressed to nothing."""
    manifest = checkpoint.read_manifest(tiny_run / 'checkpoints' / '2')
    leaves = [
        jax.ShapeDtypeStruct(shape, dtype)
        for name, (dtype, shape) in manifest['tree'].items()
        if name.startswith('params/')
    ]
    taken = sum(f['bytes'] for name, f in manifest['files'].items() if name.startswith('params/'))
    assert 0.8 < taken / run_checks.checkpoint_bytes(leaves) < 1.05
