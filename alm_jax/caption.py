"""Says in words what is heard in audio files.

python -m alm_jax.caption FILE... --checkpoint CHECKPOINT
python -m alm_jax.caption FILE --checkpoint CHECKPOINT --prompt "How many dogs are there?"
python -m alm_jax.caption FILE --checkpoint CHECKPOINT --every_seconds 10
python -m alm_jax.caption --manifest my.csv --out captions.parquet --checkpoint CHECKPOINT

The checkpoint is a generative run, or a pretrained folder such as Qwen2-Audio. A line is a file and
its caption, with a tab between. Of a file longer than the model takes the beginning is heard, and
stderr says how much; --every_seconds captions all of it, window by window. A prompt may place the
audio by the model's own token (<|AUDIO|>, <sound>, ...), else the audio comes first; one with
several places is asked about so many files together.

A file that cannot be captioned is named, and the exit code is then 1. With a manifest (.csv, .jsonl
or .parquet with a column 'file', and 'prompt' if you like) such files are listed in
OUT.quarantine.jsonl instead. A job that was killed goes on where it was; several processes share
the files, see ``alm_jax.distributed`` for their flags.
"""

import pathlib
import sys
from collections.abc import Iterator, Sequence

import jax
from absl import flags

from alm_jax import config as config_lib
from alm_jax import distributed
from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data import audio_files
from alm_jax.speaking import choices
from alm_jax.speaking.batch import Batch
from alm_jax.speaking.shard import Cells, Order, captions
from alm_jax.speaking.speaker import Speaker

SHORTEST_WINDOW = 0.1  # seconds
_ROUNDING = 0.01  # seconds that may be missing without a word


def about_files(speaker: Speaker, order: Order, files: Sequence[str]) -> Iterator[Cells]:
    """Captions of files, or answers to a prompt about them; see ``shard.captions``.

    Args:
      speaker: the model.
      order: what is asked; a prompt with several places takes so many files at a time.
      files: paths.

    Raises:
      ConfigError: the prompt's places and the files do not go together.
    """
    places = speaker.places(order.prompt)
    if places == 1:
        yield from captions(
            speaker, order, ((file, order.prompt) for file in files), pathlib.Path()
        )
        return
    if order.every_seconds or len(files) % places:
        raise ConfigError(
            f'--prompt has {places} places for audio: give {places} files or a multiple, and no '
            f'--every_seconds. There are {len(files)} files.'
        )
    for start in range(0, len(files), places):
        yield _together(speaker, order, files[start : start + places])


def _together(speaker: Speaker, order: Order, files: Sequence[str]) -> Cells:
    """The answer to a prompt about several files."""
    cells = {'file': ', '.join(files), 'start': 0.0, 'caption': '', 'problem': ''}
    try:
        heard = [next(order.excerpts(file)) for file in files]
        row = [(excerpt.waveform, excerpt.rate) for excerpt in heard], [(order.prompt, None)]
        options = {'max_tokens': order.max_tokens, 'sampling': order.sampling}
        cells['caption'] = speaker.write([row], **options)[0].strip()
    except ConfigError as error:
        return {**cells, 'problem': str(error)}
    seconds, total = (sum(getattr(e, name) for e in heard) for name in ('seconds', 'total'))
    return {**cells, 'seconds': seconds, 'total': total}


def main(argv: list[str]) -> int:
    """See the head of this file."""
    given = flags.FLAGS
    with distributed.session():
        if bool(argv[1:]) == bool(given.manifest):
            raise ConfigError('give audio files, or --manifest (not both).')
        if given.manifest:
            return _manifest(given)
        return _files(audio_files.found(argv[1:]), given)


def _files(files: Sequence[str], given: flags.FlagValues) -> int:
    if jax.process_count() > 1:
        raise ConfigError('several processes share the files of a --manifest, not of a command.')
    if not any(map(_can_be_opened, files)):  # told before a large model is loaded
        decode.header(files[0])
    speaker = choices.speaker(given)
    order = _order(speaker, given, given.batch_size if given.every_seconds else 1)
    bad = []
    for cells in about_files(speaker, order, files):
        if cells['problem']:
            bad.append(cells['problem'])
            continue
        end = cells['start'] + cells['seconds']
        times = f'{cells["start"]:.2f}-{end:.2f}\t' if given.every_seconds else ''
        print(f'{cells["file"]}\t{times}{" ".join(cells["caption"].split())}', flush=True)
        if not given.every_seconds and end < cells['total'] - _ROUNDING:
            heard = f'the first {end:g} s of {cells["total"]:.1f} s'
            print(f'{cells["file"]}: heard {heard}; see --every_seconds.', file=sys.stderr)
    if len(bad) == len(files):
        raise ConfigError('\n  '.join(bad))
    if bad:
        print(f'{len(bad)} could not be captioned:', *bad, sep='\n  ', file=sys.stderr)
    return 1 if bad else 0


def _can_be_opened(file: str) -> bool:
    try:
        return bool(decode.header(file))
    except AudioError:
        return False


def _manifest(given: flags.FlagValues) -> int:
    manifest, out = pathlib.Path(given.manifest), pathlib.Path(given.out)
    speaker = choices.speaker(given)
    batch = Batch(
        speaker,
        _order(speaker, given, given.batch_size),
        manifest,
        out,
        pathlib.Path(given.root or manifest.parent),
        given.files_per_shard,
    )
    captions, bad = batch.run()
    if jax.process_index() == 0:
        print(f'{captions} captions, written to {out}')
        if bad:
            print(f'{bad} files could not be captioned: {batch.quarantine}', file=sys.stderr)
    return 0


def _order(speaker: Speaker, given: flags.FlagValues, batch_size: int) -> Order:
    if given.every_seconds and given.every_seconds < SHORTEST_WINDOW:
        raise ConfigError(f'--every_seconds is {given.every_seconds}; at least {SHORTEST_WINDOW}.')
    speaker.places(given.prompt or '')
    return Order(
        prompt=(speaker.prompt or '') if given.prompt is None else given.prompt,
        max_tokens=given.max_tokens,
        sampling=choices.sampling(given),
        seconds=min(speaker.max_seconds, given.max_seconds),
        every_seconds=given.every_seconds,
        batch_size=batch_size,
    )


if __name__ == '__main__':
    choices.define_flags(max_tokens=64)
    flags.DEFINE_string(
        'prompt', None, "What is asked; by default the model's words for a caption."
    )
    flags.DEFINE_float(
        'max_seconds', 600.0, 'Heard of a file, if the model takes so much.', lower_bound=0.1
    )
    flags.DEFINE_float('every_seconds', 0.0, 'Caption all of a file, in windows of this length.')
    flags.DEFINE_string('manifest', '', '.csv, .jsonl or .parquet with a column file, or prompt.')
    flags.DEFINE_string('root', '', "Where its paths start; by default the manifest's folder.")
    flags.DEFINE_string('out', 'captions.parquet', 'Where captions of a manifest go.')
    flags.DEFINE_integer('files_per_shard', 256, 'Files of a manifest written at once.', 1)
    flags.DEFINE_integer('batch_size', 8, 'Clips at a time.', lower_bound=1)
    distributed.define_flags()
    config_lib.run(main)
