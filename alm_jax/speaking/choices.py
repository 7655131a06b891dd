"""The flags that ``alm_jax.caption`` and ``alm_jax.chat`` have in common."""

from absl import flags

from alm_jax.config import ConfigError
from alm_jax.decoding.sampling import Sampling
from alm_jax.speaking.speaker import Speaker, load_speaker


def define_flags(max_tokens: int) -> None:
    """Declares the flags, with this default of --max_tokens."""
    flags.DEFINE_string('checkpoint', '', 'A run, one of its checkpoints, or a pretrained folder.')
    flags.DEFINE_string('workdir', '', 'The same of a run: its newest complete checkpoint.')
    flags.DEFINE_integer('step', None, 'Which checkpoint of a run.')
    flags.DEFINE_integer('max_tokens', max_tokens, 'Tokens of a text at most.', lower_bound=1)
    flags.DEFINE_float(
        'temperature', 0.0, '0 takes the likeliest token, 1 draws as the model says.'
    )
    flags.DEFINE_integer('top_k', 0, 'Draw from so many of the likeliest tokens; 0 is all.')
    flags.DEFINE_float('top_p', 1.0, 'Draw from the likeliest tokens with this share together.')
    flags.DEFINE_float('repetition_penalty', 1.0, 'Above 1: tokens that were said are less likely.')
    flags.DEFINE_integer('seed', 0, 'Of the draw.')


def sampling(given: flags.FlagValues) -> Sampling:
    """How tokens are chosen. Raises ConfigError for numbers out of range."""
    return Sampling(
        temperature=given.temperature,
        top_k=given.top_k,
        top_p=given.top_p,
        repetition_penalty=given.repetition_penalty,
        seed=given.seed,
    )


def speaker(given: flags.FlagValues) -> Speaker:
    """The model. Raises ConfigError when none is named; see also ``load_speaker``."""
    path = given.checkpoint or given.workdir
    if not path:
        raise ConfigError('give --checkpoint: a generative run, or a folder such as Qwen2-Audio.')
    return load_speaker(path, given.step)
