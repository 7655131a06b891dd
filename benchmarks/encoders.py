"""Forward and training step of each audio encoder at its published size, against its reference.

COMMAND: python benchmarks/encoders.py --encoders whisper_tiny,htsat --batch 4 --rounds 5

Both libraries run in this one run, each in a process of its own, taking turns; random weights,
float32, the same input. A step is the gradient of the mean squared output in every parameter and
an AdamW update. Prints median seconds, the ratio alm_jax / reference (below 1: we are faster), and
the peak memory of each process beyond what its libraries take when imported, again as a ratio.
--threads is torch's; XLA takes all cores. The references of Cnn14 and AudioMAE lie in the folder
that ALM_JAX_REFERENCES names (tests/interop/references.txt).
"""

import argparse
import dataclasses
import gc
import importlib
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SEED = 0


@dataclasses.dataclass(frozen=True)
class Encoder:
    """How both libraries build one encoder.

    Attributes:
      reference: () -> torch module with random weights.
      module: () -> our Linen module.
      shape: of the reference's input, without its batch.
      ours: turns that input into the one of our module.
      theirs: what the reference returns -> output tensor.
      output: of our dict of intermediates.
    """

    reference: Callable[[], Any]
    module: Callable[[], Any]
    shape: tuple[int, ...]
    output: str
    ours: Callable[[Any], Any] = lambda x: x
    theirs: Callable[[Any], Any] = lambda found: found.last_hidden_state


def of_transformers(config: str, model: str, options: dict, shape: tuple, **rest: Any) -> Encoder:
    """A model of transformers with a config class's published defaults and ``options``."""

    def made():
        import transformers

        return getattr(transformers, config)(**options)

    def reference():
        import transformers

        return getattr(transformers, model)(made())

    def module():
        from alm_jax.interop import families

        found = made().to_dict()
        return families.find(found['model_type'], config).module(found)

    return dataclasses.replace(Encoder(reference, module, shape, 'tokens'), **rest)


def whisper(width: int, depth: int, heads: int) -> Encoder:
    options = {
        'd_model': width,
        'encoder_layers': depth,
        'encoder_attention_heads': heads,
        'encoder_ffn_dim': 4 * width,
    }
    whole = of_transformers('WhisperConfig', 'WhisperModel', options, (80, 3000))
    return dataclasses.replace(
        whole,
        reference=lambda: whole.reference().encoder,
        module=lambda: whole.module().encoder,
        ours=lambda mel: mel.transpose(0, 2, 1),
    )


def htsat() -> Encoder:
    def module():
        from alm_jax.interop import families

        return families.find('clap', 'htsat').module({'audio_config': {}}).audio

    return of_transformers(
        'ClapAudioConfig',
        'ClapAudioModel',
        {},
        (1, 1001, 64),
        module=module,
        ours=lambda mel: mel[:, 0],
        theirs=lambda found: found.pooler_output,
        output='pooled',
    )


def family(model_type: str, config: dict) -> Any:
    from alm_jax.interop import families

    return families.find(model_type, 'benchmark').module(config)


def published(name: str, *packages: str, by: str = 'bare_packages') -> Any:
    """A module of a package that lies in the folder ALM_JAX_REFERENCES, see tests/interop."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'tests' / 'interop'))
    return importlib.import_module(by).module(name, *packages)


def cnn14() -> Encoder:
    def reference():
        import torch

        whole = published('panns_inference.models', 'torchlibrosa').Cnn14(
            32_000, 1024, 320, 64, 50, 14_000, 527
        )
        whole.spectrogram_extractor = whole.logmel_extractor = torch.nn.Identity()
        return whole

    return Encoder(
        reference,
        lambda: family('panns_cnn14', {}),
        (1, 1001, 64),
        'pooled',
        lambda mel: mel[:, 0],
        lambda found: found['embedding'],
    )


def audiomae() -> Encoder:
    def reference():
        create = published('timm', by='timm_packages').create_model
        return create('vit_base_patch16_224', in_chans=1, img_size=(1024, 128), num_classes=0)

    return Encoder(
        reference,
        lambda: family('audiomae', {}),
        (1, 1024, 128),
        'pooled',
        lambda mel: mel[:, 0],
        lambda found: found,
    )


SECONDS_10 = (160_000,)
ENCODERS: dict[str, Callable[[], Encoder]] = {
    'htsat': htsat,
    'cnn14': cnn14,
    'ast': lambda: of_transformers('ASTConfig', 'ASTModel', {}, (1024, 128)),
    'whisper_tiny': lambda: whisper(384, 4, 6),
    'whisper_small': lambda: whisper(768, 12, 12),
    'wav2vec2_base': lambda: of_transformers('Wav2Vec2Config', 'Wav2Vec2Model', {}, SECONDS_10),
    'hubert_base': lambda: of_transformers('HubertConfig', 'HubertModel', {}, SECONDS_10),
    'wavlm_base': lambda: of_transformers('WavLMConfig', 'WavLMModel', {}, SECONDS_10),
    'conformer_768x12': lambda: of_transformers(
        'Wav2Vec2ConformerConfig', 'Wav2Vec2ConformerModel', {}, SECONDS_10
    ),
    'audiomae': audiomae,
    'mimi': lambda: of_transformers(
        'MimiConfig',
        'MimiModel',
        {},
        (1, 48_000),
        ours=lambda x: x.transpose(0, 2, 1),
        theirs=lambda found: found.audio_values,
        output='waveform',
    ),
    'encodec_24khz': lambda: of_transformers(
        'EncodecConfig',
        'EncodecModel',
        {},
        (1, 48_000),
        ours=lambda x: x.transpose(0, 2, 1),
        theirs=lambda found: found.audio_values,
        output='waveform',
    ),
    'dac_16khz': lambda: of_transformers(
        'DacConfig',
        'DacModel',
        {},
        (1, 32_000),
        ours=lambda x: x.transpose(0, 2, 1),
        theirs=lambda found: found.audio_values,
        output='waveform',
    ),
}


def resident() -> tuple[float, float]:
    """(now, at most since the start): megabytes of this process."""
    with open('/proc/self/status') as file:
        lines = dict(line.split(':', 1) for line in file)
    return tuple(int(lines[key].split()[0]) / 1e3 for key in ('VmRSS', 'VmHWM'))


def noise(batch: int, encoder: Encoder) -> np.ndarray:
    shape = (batch, *encoder.shape)
    return np.random.default_rng(SEED).normal(0, 1, shape).astype(np.float32)


def run_reference(encoder: Encoder, batch: int, threads: int) -> dict[str, Callable[[], None]]:
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    model = encoder.reference().eval()
    inputs = torch.tensor(noise(batch, encoder))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def forward():
        with torch.no_grad():
            encoder.theirs(model(inputs))

    def step():
        optimizer.zero_grad()
        encoder.theirs(model(inputs)).square().mean().backward()
        optimizer.step()

    return {'forward': forward, 'step': step}


def run_ours(encoder: Encoder, batch: int) -> dict[str, Callable[[], None]]:
    import jax
    import jax.numpy as jnp
    import optax

    module = encoder.module()
    inputs = encoder.ours(jnp.asarray(noise(batch, encoder)))
    variables = jax.jit(module.init)(jax.random.key(SEED), inputs)
    optimizer = optax.adamw(1e-5)
    state = {'params': variables.pop('params')}

    def output(params):
        return module.apply({'params': params, **variables}, inputs)[encoder.output]

    def update(params, moments):
        gradients = jax.grad(lambda p: jnp.mean(jnp.square(output(p))))(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments

    compiled, updated = jax.jit(output), jax.jit(update, donate_argnums=(0, 1))

    def forward():
        jax.block_until_ready(compiled(state['params']))

    def step():
        if 'moments' not in state:
            state['moments'] = jax.jit(optimizer.init)(state['params'])
        state['params'], state['moments'] = updated(state['params'], state['moments'])
        jax.block_until_ready(state['params'])

    return {'forward': forward, 'step': step}


def serve(side: str, name: str, batch: int, threads: int) -> None:
    """The process of one library: reads 'forward' or 'step', answers seconds and peak memory."""
    encoder = ENCODERS[name]()
    importlib.import_module('transformers' if side == 'reference' else 'alm_jax.interop.families')
    before, _ = resident()
    runs = (
        run_reference(encoder, batch, threads) if side == 'reference' else run_ours(encoder, batch)
    )
    gc.collect()
    for line in sys.stdin:
        start = time.perf_counter()
        runs[line.strip()]()
        seconds = time.perf_counter() - start
        print(json.dumps({'seconds': seconds, 'megabytes': resident()[1] - before}), flush=True)


class Side:
    """One library's process."""

    def __init__(self, side: str, name: str, args: argparse.Namespace):
        command = [sys.executable, __file__, '--serve', side, '--encoders', name]
        command += ['--batch', str(args.batch), '--threads', str(args.threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, what: str) -> dict[str, float]:
        print(what, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f'the process ended: {" ".join(self._process.args)}')
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(name: str, args: argparse.Namespace) -> None:
    sides = {side: Side(side, name, args) for side in ('alm_jax', 'reference')}
    for what in ('forward', 'step'):
        first = {side: run(what) for side, run in sides.items()}  # compiles, allocates
        seen = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side, run in sides.items():
                seen[side].append(run(what))
        seconds = {s: statistics.median(r['seconds'] for r in rows) for s, rows in seen.items()}
        peak = {side: rows[-1]['megabytes'] for side, rows in seen.items()}
        ratio = statistics.median(
            a['seconds'] / b['seconds'] for a, b in zip(seen['alm_jax'], seen['reference'])
        )
        print(
            f'{name:18} {what:8} {seconds["alm_jax"]:8.3f} {seconds["reference"]:10.3f} '
            f'{ratio:6.2f} | {peak["alm_jax"]:8.0f} {peak["reference"]:10.0f} '
            f'{peak["alm_jax"] / peak["reference"]:6.2f} | {first["alm_jax"]["seconds"]:6.1f}',
            flush=True,
        )
    for side in sides.values():
        side.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--encoders', default=','.join(ENCODERS))
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--serve', choices=('alm_jax', 'reference'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    chosen = args.encoders.split(',')
    if unknown := sorted(set(chosen) - set(ENCODERS)):
        parser.error(f'no encoder {unknown[0]!r}; there are {", ".join(ENCODERS)}.')
    if args.serve:
        serve(args.serve, chosen[0], args.batch, args.threads)
        return
    print(f'batch {args.batch}')
    print(f'{"":27} {"seconds":^26} | {"peak MB":^26} | first')
    both = f'{"alm_jax":>8} {"reference":>10} {"ratio":>6}'
    print(f'{"encoder":18} {"run":8} {both} | {both} | {"s":>6}')
    for name in chosen:
        compare(name, args)


if __name__ == '__main__':
    main()
