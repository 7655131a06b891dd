"""Audio and text towers trained to agree: int16 PCM in, contrastive loss out, all in one jit."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alm_jax.audio import windows
from alm_jax.config import ConfigError, choose
from alm_jax.models.layers.placement import activation_axes
from alm_jax.models.two_tower import build_two_tower
from alm_jax.objectives import blockwise, contrastive
from alm_jax.tasks.front_end import FrontEnd
from alm_jax.tasks.predictors import Predictors
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import param_sharding, sharding

OBJECTIVES = {
    'infonce': lambda out, batch: contrastive.infonce(*_pair(out)),
    'multi_positive': lambda out, batch: contrastive.multi_positive(*_pair(out), *_groups(batch)),
    'sigmoid': lambda out, batch: contrastive.sigmoid(
        *_pair(out), out['logit_bias'], *_groups(batch)
    ),
}
BLOCKWISE = {
    'infonce': lambda out, batch, **form: blockwise.multi_positive(
        *_pair(out), *_groups_of_rows(out), **form
    ),
    'multi_positive': lambda out, batch, **form: blockwise.multi_positive(
        *_pair(out), *_groups(batch), **form
    ),
    'sigmoid': lambda out, batch, **form: blockwise.sigmoid(
        *_pair(out), out['logit_bias'], *_groups(batch), **form
    ),
}


class ContrastiveTask:
    """CLAP-style pretraining.

    Attributes:
      front_end: the log-mel constants.
      sampling_rate: Hz.
      window_samples: samples of one training row and of one evaluation window.
      model: the Linen module.
    """

    MODELS: ClassVar = {'two_tower': build_two_tower}

    def __init__(
        self, config: ConfigDict, *, tokenizer: Tokenizer | None = None, mesh: Mesh | None = None
    ):
        """See ``build_task``."""
        self._features = FrontEnd(config, mesh)
        self.front_end = self._features.preset
        self.sampling_rate = self._features.sampling_rate
        self.window_samples = self._features.window_samples
        text = config.data.text
        unread = {
            'pack': config.data.pack,
            'max_clips': config.data.max_clips > 1,
            'text.hard_negatives': text.hard_negatives,
            'text.instruction': text.instruction,
        }
        for key, value in unread.items():
            if value:
                raise ConfigError(
                    f'config.data.{key} makes batches that the contrastive task does not read.'
                )
        build = choose(self.MODELS, config.model.family, where='model.family')
        self.model = build(config.model, dtype=jnp.dtype(config.compute_dtype), remat=config.remat)
        self._objective = _objective(config, mesh)
        self._config = config
        self._tokenizer = tokenizer
        self._mesh = mesh
        rules = config.sharding.activations
        self._axes = {} if mesh is None else param_sharding.logical_axes(rules, mesh)

    def init(self, rng: jax.Array, batch_spec: Mapping[str, Any]) -> tuple[Any, Any]:
        """(params, extra) drawn from ``rng``; ``batch_spec`` gives the text length."""
        mel, frames = self._features.empty(1)
        tokens = jnp.zeros((1, batch_spec['token_ids'].shape[1]), jnp.int32)
        variables = dict(self.model.init(rng, mel, frames, tokens, tokens == 0))
        return variables.pop('params'), variables

    def loss(
        self, params: Any, extra: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """The objective over the global batch.

        Args:
          params, extra: from ``init``.
          batch: 'pcm' int16 [b, n] and 'num_samples' int32 [b], or with a host front end 'mel'
            [b, t, n_mels] and 'num_frames' int32 [b]; 'token_ids' int32 [b, t], 'token_mask' bool
            [b, t], 'audio_group' and 'text_group' int32 [b].
          rng: of augmentation and dropout.

        Returns:
          (float32 scalar, (metrics 'logit_scale' and 'logit_bias', extra)).
        """
        embeddings = self.embed(params, extra, batch, rng)
        return self.loss_of(params, extra, embeddings, batch)

    def embed(
        self, params: Any, extra: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> dict[str, jax.Array]:
        """The embeddings of some rows, as ``loss`` sees them; its arguments.

        Each depends on its own row and the draws for it alone, also where ``extra`` has the
        statistics of batch norms, which no encoder updates.

        Returns:
          'audio_embedding' and 'text_embedding', float32 [b, d] of unit norm.
        """
        wave_rng, mel_rng, dropout_rng = jax.random.split(rng, 3)
        mel, num_frames = self._features.augmented(batch, wave_rng, mel_rng)
        with activation_axes(self._mesh, self._axes):
            out = self.model.apply(
                {'params': params, **extra},
                mel,
                num_frames,
                batch['token_ids'],
                batch['token_mask'],
                train=True,
                rngs={'dropout': dropout_rng},
            )
        return {name: out[name] for name in ('audio_embedding', 'text_embedding')}

    def loss_of(
        self,
        params: Any,
        extra: Any,
        embeddings: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """What ``loss`` returns, from the embeddings of the global batch."""
        scales = self.model.apply({'params': params, **extra}, method='scales')
        metrics = {name: scales[name] for name in ('logit_scale', 'logit_bias')}
        with jax.named_scope('objective'):
            return self._objective({**embeddings, **scales}, batch), (metrics, extra)

    def after_update(self, params: Any, extra: Any, step: jax.Array) -> Any:
        """Nothing follows an update: ``extra`` as it is."""
        return extra

    @functools.cached_property
    def predictors(self) -> Predictors:
        """The evaluation functions; they compile at first use."""
        return Predictors(
            embed_windows=self._embed_windows,
            embed_tokens=self._embed_tokens,
            tokenizer=self._tokenizer or load_tokenizer(self._config),
            sampling_rate=self.sampling_rate,
            window_samples=self.window_samples,
            front_end_sha256=self._features.sha256(windows.EVALUATION_POLICY),
            mesh=self._mesh,
        )

    def _embed_windows(self, params, extra, pcm, num_samples):
        mel, num_frames = self._features.plain(pcm, num_samples)
        return self.model.apply({'params': params, **extra}, mel, num_frames, method='embed_audio')

    def _embed_tokens(self, params, extra, token_ids, token_mask):
        return self.model.apply(
            {'params': params, **extra}, token_ids, token_mask, method='embed_text'
        )


def _pair(out):
    return out['audio_embedding'], out['text_embedding'], out['logit_scale']


def _groups(batch):
    return batch['audio_group'], batch['text_group']


def _groups_of_rows(out):
    """Every pair a group of its own."""
    rows = jnp.arange(len(out['audio_embedding']), dtype=jnp.int32)
    return rows, rows


def _objective(config: ConfigDict, mesh: Mesh | None):
    """(out, batch) -> scalar, in the form that ``config.task.form`` names."""
    name, form, chunk = config.task.objective, config.task.form, config.task.chunk
    dense = choose(OBJECTIVES, name, where='task.objective')
    forms = {'dense': dense}
    for blocks in blockwise.FORMS:
        forms[blocks] = functools.partial(
            BLOCKWISE[name],
            form=blocks,
            chunk=chunk,
            mesh=mesh,
            axes=sharding.BATCH if mesh is None else sharding.batch_axes(mesh),
        )
    if chunk < 1:
        raise ConfigError(f'config.task.chunk is {chunk}; it must be at least 1.')
    return choose(forms, form, where='task.form')


def load_tokenizer(config: ConfigDict) -> Tokenizer:
    path = config.text.tokenizer
    if path.startswith('packaged:'):
        raise ConfigError(
            f'config.text.tokenizer is {path!r}; give build_task the fetched tokenizer or its path.'
        )
    return Tokenizer.load(path, config.text.lengths)
