"""A run in stages: against a hand-made sequence, killed in each stage and between them.

Its two stages have other data, batch sizes, frozen parameters and learning rates.
"""

import json
import signal

import pytest
from train_program import Program, numbers

from alm_jax.load import load
from alm_jax.training import checkpoint

HEADS, ALL, EVERY = 5, 6, 3  # steps of the stages, and between checkpoints
STEPS = HEADS + ALL
CONFIG = f"""
from alm_jax.config import base


def get_config(arg=None):
    c = base()
    c.steps = {STEPS}
    c.batch_size = 4
    c.log_every = 1
    c.data.train = ({{'name': 'packaged_sounds/tiny:train', 'where': {{'kind': ['sound']}}}},)
    c.front_end.seconds = 1.0
    c.augment.gain_db = 6.0
    c.model.audio = {{'name': 'spectrogram_transformer', 'variant': 'mu', 'dropout': 0.1}}
    c.model.embed_dim = 32
    c.task.objective = 'multi_positive'
    c.checkpoint.every = {EVERY}
    c.checkpoint.keep = 1
    speech = {{'name': 'packaged_sounds/tiny:train', 'where': {{'kind': ['speech']}}}}
    evaluation = {{'evaluator': 'zero_shot', 'data': 'packaged_sounds/tiny:validation'}}
    c.stages = (
        {{'name': 'heads', 'steps': {HEADS}, 'freeze': ('^audio/', '^text/')}},
        {{
            'name': 'all',
            'steps': {ALL},
            'data.train': (*c.data.train, speech),
            'batch_size': 6,
            'micro_batches': 2,
            'optimizer.learning_rate': 3e-4,
            'optimizer.warmup_steps': 2,
            'evals': {{'zero_shot_validation': evaluation}},
        }},
    )
    return c
"""
BY_HAND = f"""
import dataclasses
import json
import small
import jax
from alm_jax import config as config_lib
from alm_jax.data import loader
from alm_jax.tasks import build_task
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import checkpoint, optimizer, sharding, state, step

first, second = small.get_config(), small.get_config()
first.freeze = ('^audio/', '^text/')
second.data.train = second.stages[1]['data.train']
second.batch_size, second.micro_batches = 6, 2
second.optimizer.learning_rate, second.optimizer.warmup_steps = 3e-4, 2
first.steps, second.steps = {HEADS}, {ALL}
tokenizer = Tokenizer.load('whole/tokenizer', (32,))
mesh = sharding.make_mesh(first.mesh)
everywhere = sharding.replicated(mesh)
current, losses = None, []
for config, start in ((first, 0), (second, {HEADS})):
    task = build_task(config, tokenizer=tokenizer, mesh=mesh)
    sizes = {{'sampling_rate': task.sampling_rate, 'window_samples': task.window_samples}}
    spec = loader.batch_specs(config, **sizes)[0]

    def init():
        return task.init(jax.random.key(config.seed), spec)

    adamw = optimizer.make_optimizer(config, jax.eval_shape(init)[0])
    adamw = dataclasses.replace(adamw, schedule=lambda n, s=adamw.schedule, b=start: s(n - b))
    params, extra = jax.jit(init, out_shardings=everywhere)()
    if current is not None:
        params, extra = current.params, current.extra
    made = state.create(params, extra, adamw)
    if current is not None:
        made = made.replace(step=current.step, data_step=current.data_step)
    current = jax.device_put(made, everywhere)
    take = step.make_train_step(
        task, adamw, seed=config.seed, mesh=mesh, micro_batches=config.micro_batches
    )
    batches = loader.batches(config, **sizes, tokenizer=tokenizer, start_step=start)
    for _ in range(config.steps):
        current, found = take(current, sharding.put_batch(next(batches), mesh))
        losses.append(float(found['loss']))
    batches.close()
print(json.dumps([losses, checkpoint.checkpoint_sha256(current.params)]))
"""


@pytest.fixture(scope='module')
def program(tmp_path_factory, packaged_tiny):
    return Program(tmp_path_factory.mktemp('stages'), packaged_tiny, CONFIG)


@pytest.fixture(scope='module')
def whole(program):
    """The workdir of a run that nothing interrupted."""
    workdir = program.folder / 'whole'
    done = program.train(workdir)
    assert done.returncode == 0, done.stderr
    assert f'stage heads, steps 1 to {HEADS}: parameters:' in done.stderr
    assert f'stage all, steps {HEADS + 1} to {STEPS}: parameters:' in done.stderr
    return workdir


def sha256(workdir):
    params, _ = checkpoint.load_params(checkpoint.resolve(workdir, STEPS))
    return checkpoint.checkpoint_sha256(params)


def test_a_run_in_stages_is_the_sequence_made_by_hand(program, whole):
    (program.folder / 'by_hand.py').write_text(BY_HAND)
    done = program.run('by_hand.py')
    assert done.returncode == 0, done.stderr
    losses, by_hand = json.loads(done.stdout)
    found = numbers(whole)
    assert [found[step, 'train/loss'] for step in range(1, STEPS + 1)] == losses
    assert sha256(whole) == by_hand


def test_stages_are_in_the_files_of_a_run(whole):
    lines = [json.loads(line) for line in (whole / 'metrics.jsonl').read_text().splitlines()]
    assert {line['step']: line['stage'] for line in lines} == {
        **dict.fromkeys(range(1, HEADS + 1), 'heads'),
        **dict.fromkeys(range(HEADS + 1, STEPS + 1), 'all'),
    }
    rates = {step: rate for (step, name), rate in numbers(whole).items() if 'learning' in name}
    assert rates[HEADS + 1] == pytest.approx(1.5e-4)  # a warm-up of its own
    assert rates[HEADS + 2] == pytest.approx(3e-4)
    kept = sorted(int(path.name) for path in (whole / 'checkpoints').iterdir())
    assert kept == [HEADS, STEPS]
    manifests = [checkpoint.read_manifest(whole / 'checkpoints' / str(step)) for step in kept]
    assert [manifest['stage'] for manifest in manifests] == ['heads', 'all']
    assert not any(
        name.startswith('training/opt_state/transform/1/mu/audio/') for name in manifests[0]['tree']
    )
    assert [
        stage['name'] for stage in json.loads((whole / 'config.json').read_text())['stages']
    ] == ['heads', 'all']
    assert [p.name for p in (whole / 'evals').glob('*/*.json')] == [f'{STEPS}.json']
    page = (whole / 'report.html').read_text()
    assert f'<td>all</td><td>{HEADS + 1} to {STEPS}</td><td>batch_size: 6<br>' in page
    text = (whole / 'sharding.txt').read_text()
    assert text.index('stage heads') < text.index('stage all')
    assert load(whole, HEADS).embed_text(['a dog barks']).shape == (1, 32)


@pytest.mark.parametrize('at', [EVERY, HEADS, STEPS - 2])
def test_killed_in_a_stage_or_between_two_it_goes_on_bit_for_bit(program, whole, at):
    workdir = program.folder / f'killed at {at}'
    returncode, stderr = program.interrupt(workdir, at, signal.SIGKILL)
    assert returncode == -signal.SIGKILL, stderr
    newest = int(checkpoint.latest_complete(workdir).name)
    assert at <= newest < STEPS
    done = program.train(workdir)
    assert done.returncode == 0, done.stderr
    assert f'state: {workdir}/checkpoints/{newest}' in done.stderr
    assert numbers(workdir) == numbers(whole)
    assert sha256(workdir) == sha256(whole)


def test_from_the_boundary_itself(program, whole):
    workdir = program.folder / 'from the boundary'
    done = program.train(workdir, f'--config.resume={whole}/checkpoints/{HEADS}')
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('compiled for') == 1  # nothing of the stage that is over
    assert numbers(workdir) == numbers(whole, after=HEADS)
    assert sha256(workdir) == sha256(whole)


def test_a_stage_that_has_begun_stays_as_it_was(program, whole):
    changed = CONFIG.replace("'optimizer.warmup_steps': 2", "'optimizer.warmup_steps': 1")
    (program.folder / 'changed.py').write_text(changed)
    done = program.train(whole, '--config', 'changed.py')
    assert done.returncode == 2
    assert "config.stages[1] ('all') has begun by step" in done.stderr
    assert 'optimizer.warmup_steps was 2, is 1' in done.stderr
