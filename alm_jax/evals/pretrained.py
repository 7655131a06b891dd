"""Other people's models that write, as the evaluators take a run."""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax.decoding.generate import GREEDY
from alm_jax.interop.family import Pretrained
from alm_jax.load import Run, load
from alm_jax.speaking.speaker import Row, Speaker, speaker_of

_ROWS = 8  # that are read at a time
_WINDOW_SECONDS = 30.0  # of an encoder that does not say
_PROCESSORS = ('preprocessor_config.json', 'processor_config.json', 'config.json')


@dataclasses.dataclass(frozen=True)
class PretrainedGenerators:
    """A pretrained model that has what evaluators ask of ``tasks.generators.Generators``.

    Attributes:
      model: what ``alm_jax.load`` gave.
      speaker: writes with it. A model that takes no prompts says what it says.
    """

    model: Pretrained
    speaker: Speaker

    @property
    def window_samples(self) -> int:
        """Samples of one window of the encoder at ``sampling_rate``."""
        default = round(_WINDOW_SECONDS * self.sampling_rate)
        return getattr(getattr(self.model, 'features', None), 'window_samples', default)

    @property
    def sampling_rate(self) -> int:
        """Hz."""
        if rate := getattr(self.model, 'sampling_rate', None):
            return rate
        return self.model.features.front_end.sampling_rate

    @property
    def max_seconds(self) -> float:
        """How much of a clip is heard."""
        return self.speaker.max_seconds

    @property
    def front_end_sha256(self) -> str:
        """Names the first of the folder's files that says how audio is prepared."""
        return self._sha256(*_PROCESSORS)

    @property
    def text_sha256(self) -> str:
        """Names the tokenizer; '' without a tokenizer.json."""
        return self._sha256('tokenizer.json')

    def generate(
        self, params: Any, extra: Any, rows: Iterable[Row], *, max_tokens: int
    ) -> list[str]:
        """Greedy answers, one a row; ``params`` and ``extra`` are the model's own."""
        del params, extra
        texts, rows = [], iter(rows)
        while block := list(itertools.islice(rows, _ROWS)):
            texts += self.speaker.write(block, max_tokens=max_tokens, sampling=GREEDY)
        return texts

    def _sha256(self, *names: str) -> str:
        for path in (self.model.folder / name for name in names):
            if path.is_file():
                return hashlib.sha256(path.read_bytes()).hexdigest()
        return ''


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """A pretrained model with the attributes that a run has; it has no steps."""

    predictors: PretrainedGenerators = dataclasses.field(repr=False)
    config: ConfigDict = dataclasses.field(default_factory=config_lib.base, repr=False)
    params: None = None
    extra: None = None
    workdir: str = ''
    step: None = None

    @property
    def checkpoint_sha256(self) -> str:
        """The hash of the logical parameters."""
        return self.predictors.speaker.checkpoint_sha256


def load_model(path: str | os.PathLike, step: int | None = None) -> Run | PretrainedModel:
    """``alm_jax.load`` for an evaluator of what models write.

    Raises:
      ConfigError: see ``alm_jax.load``; a model that does not hear or does not write.
    """
    model = load(path, step)
    speaker = speaker_of(model, path)
    return (
        model if isinstance(model, Run) else PretrainedModel(PretrainedGenerators(model, speaker))
    )
