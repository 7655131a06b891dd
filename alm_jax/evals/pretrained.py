"""Other people's models that write, as the evaluators take a run."""

import dataclasses
import functools
import hashlib
import inspect
import os
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax.audio import decode
from alm_jax.audio.resample import resample
from alm_jax.config import ConfigError
from alm_jax.evals.hearing import Clips, Turns
from alm_jax.interop.family import Pretrained
from alm_jax.load import load
from alm_jax.training import checkpoint

_WINDOW_SECONDS = 30.0  # of an encoder that does not say
_PROCESSORS = ('preprocessor_config.json', 'processor_config.json', 'config.json')


@dataclasses.dataclass(frozen=True)
class PretrainedGenerators:
    """``generate`` of a pretrained model, row by row, as ``tasks.generators.Generators`` has it.

    Attributes:
      model: what ``alm_jax.load`` gave.
    """

    model: Pretrained

    @property
    def sampling_rate(self) -> int:
        """Hz; clips of another rate are resampled."""
        return self.model.sampling_rate

    @property
    def window_samples(self) -> int:
        """Samples of one window of the encoder."""
        features = getattr(self.model, 'features', None)
        found = getattr(features, 'window_samples', None)
        return found or round(_WINDOW_SECONDS * self.sampling_rate)

    @property
    def front_end_sha256(self) -> str:
        """Names the first of the folder's files that says how audio is prepared."""
        return self._sha256(*_PROCESSORS)

    @property
    def text_sha256(self) -> str:
        """Names the tokenizer; '' without a tokenizer.json."""
        return self._sha256('tokenizer.json')

    def generate(
        self, params: Any, extra: Any, rows: Iterable[tuple[Clips, Turns]], *, max_tokens: int
    ) -> list[str]:
        """Greedy answers, one a row. A model that takes no prompt describes the clip as it does.

        ``params`` and ``extra`` are the model's own. Earlier turns of a dialogue stand in front of
        the last question, a line each: folders' chat templates are not rendered.
        """
        del params, extra
        texts = []
        for clips, turns in rows:
            heard = [
                resample(decode.from_pcm16(clip), rate, self.sampling_rate) for clip, rate in clips
            ]
            prompt = '\n'.join(part for turn in turns for part in turn if part)
            options = {'prompt': prompt} if self._takes_prompts and prompt else {}
            texts += self.model.generate(
                heard, **options, sampling_rate=self.sampling_rate, max_tokens=max_tokens
            )[:1]
        return texts

    @functools.cached_property
    def _takes_prompts(self) -> bool:
        return 'prompt' in inspect.signature(self.model.generate).parameters

    def _sha256(self, *names: str) -> str:
        for path in (self.model.folder / name for name in names):
            if path.is_file():
                return hashlib.sha256(path.read_bytes()).hexdigest()
        return ''


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """A pretrained model with the attributes that a run's ``Model`` has; it has no steps."""

    checkpoint_sha256: str
    predictors: PretrainedGenerators = dataclasses.field(repr=False)
    params: Any = dataclasses.field(repr=False)
    extra: Any = dataclasses.field(repr=False)
    config: ConfigDict = dataclasses.field(default_factory=config_lib.base, repr=False)
    workdir: str = ''
    step: None = None


def load_model(path: str | os.PathLike, step: int | None = None) -> Any:
    """``alm_jax.load`` for an evaluator: a run's Model, or a PretrainedModel.

    Raises:
      ConfigError: see ``alm_jax.load``; a pretrained model that does not write about audio.
    """
    model = load(path, step)
    if not isinstance(model, Pretrained):
        return model
    generate = getattr(model, 'generate', None)
    if generate is None or 'waveform' not in inspect.signature(generate).parameters:
        raise ConfigError(
            f'{path} ({model.config["model_type"]}) does not write about audio: it is no captioner '
            'and no audio-language model.'
        )
    return PretrainedModel(
        checkpoint_sha256=checkpoint.checkpoint_sha256(model.params),
        predictors=PretrainedGenerators(model),
        params=model.params,
        extra=model.extra,
    )
