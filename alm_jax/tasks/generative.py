"""A language model that hears, trained to answer: int16 PCM and dialogues in, next tokens out."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alm_jax.config import ConfigError, choose
from alm_jax.models.layers.placement import activation_axes, axes_of, current_mesh
from alm_jax.models.two_head import build_two_head
from alm_jax.objectives.generative import TokenSums, token_cross_entropy
from alm_jax.tasks.front_end import FrontEnd
from alm_jax.tasks.generators import Generators
from alm_jax.text.dialogue import Dialogue
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.training import param_sharding

MODELS = {'two_head': build_two_head}
ATTENTION = {'causal': False, 'prefix': True}


class GenerativeTask:
    """Captioning, question answering, instruction tuning: whatever is an answer after audio.

    Attributes:
      front_end: the log-mel constants.
      sampling_rate: Hz.
      window_samples: samples of one clip of a training row.
      vectors_of_frames: int32 [frames + 1], how many positions a clip of so many frames takes up in
        the token sequence.
      model: the Linen module.
    """

    def __init__(
        self,
        config: ConfigDict,
        *,
        tokenizer: LanguageTokenizer | None = None,
        mesh: Mesh | None = None,
    ):
        """See ``build_task``."""
        self._front_end = FrontEnd(config, mesh)
        self.front_end = self._front_end.preset
        self.sampling_rate = self._front_end.sampling_rate
        self.window_samples = self._front_end.window_samples
        build = choose(MODELS, config.model.family, where='model.family')
        self.model = build(config.model, dtype=jnp.dtype(config.compute_dtype), remat=config.remat)
        if not config.data.text.dialogue:
            raise ConfigError(
                "config.data.text.dialogue is '', which makes no batches that the generative task "
                "reads. Name a format, such as 'plain'; see alm_jax.text.dialogue."
            )
        self._prefix = choose(ATTENTION, config.model.attention, where='model.attention')
        self._token_loss = token_loss(config)
        self._config = config
        self._tokenizer = tokenizer
        self._mesh = mesh
        rules = config.sharding.activations
        self._axes = {} if mesh is None else param_sharding.logical_axes(rules, mesh)

    @functools.cached_property
    def vectors_of_frames(self) -> np.ndarray:
        """See the class; for the longest window that batches have."""
        seconds = max((self._config.front_end.seconds, *self._config.data.buckets))
        longest = self.front_end.num_frames(round(seconds * self.sampling_rate))
        return np.asarray(self.model.num_vectors(np.arange(longest + 1)), np.int32)

    def init(self, rng: jax.Array, batch_spec: Mapping[str, Any]) -> tuple[Any, Any]:
        """(params, extra) drawn from ``rng``; no shape of ``batch_spec`` matters."""
        del batch_spec
        mel, frames = self._front_end.empty(1)
        tokens = jnp.zeros((1, 2), jnp.int32)
        variables = dict(self.model.init(rng, mel[None], frames[None], tokens, tokens + 1))
        return variables.pop('params'), variables

    def loss(
        self, params: Any, extra: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """The mean loss of the tokens that are to be predicted, over the global batch.

        Args:
          params, extra: from ``init``.
          batch: 'pcm' int16 [b, k, n] and 'num_samples' int32 [b, k], 0 where a row has no such
            clip (with a host front end 'mel' [b, k, t', n_mels] and 'num_frames'); 'token_ids'
            int32 [b, t], -1 where a vector of audio stands, in the order of the clips; 'segments'
            int32 [b, t], the sequence that a position belongs to, 0 being padding; 'loss_mask' bool
            [b, t], the tokens that are to be predicted.
          rng: of augmentation and dropout.

        Returns:
          (float32 scalar, (metrics 'counted', the number of these tokens, and 'accuracy', the share
          of them that is the likeliest, extra)).
        """
        total, sums = self.loss_sum_and_count(params, extra, batch, rng)
        least = jnp.maximum(sums['counted'], 1.0)
        return total / least, ({**sums, 'accuracy': sums['accuracy'] / least}, extra)

    def loss_sum_and_count(
        self, params: Any, extra: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Sums over the tokens of some rows: of the loss, and what ``loss`` has as metrics."""
        *mel_rngs, dropout_rng = jax.random.split(rng, 3)
        rows, clips = batch['num_samples' if 'num_samples' in batch else 'num_frames'].shape
        flat = {
            name: batch[name].reshape(rows * clips, *batch[name].shape[2:])
            for name in ('pcm', 'num_samples', 'mel', 'num_frames')
            if name in batch
        }
        mel, num_frames = self._front_end.augmented(flat, *mel_rngs)
        segments, answers = batch['segments'], batch['loss_mask']
        with activation_axes(self._mesh, self._axes):
            out = self.model.apply(
                {'params': params, **extra},
                mel.reshape(rows, clips, *mel.shape[1:]),
                num_frames.reshape(rows, clips),
                batch['token_ids'],
                segments,
                prefix_bt=prefix_of(segments, answers) if self._prefix else None,
                logits_at_bn=jnp.zeros((rows, 0), jnp.int32),
                train=True,
                rngs={'dropout': dropout_rng},
            )
            found = self._token_loss(
                out['tokens'],
                self.model.text.head_weights(params['text']),
                *next_tokens(batch['token_ids'], segments, answers),
                softcap=self.model.text.size.logit_softcap,
            )
        total, count, correct = (jnp.sum(x) for x in found)
        return total, {'counted': count, 'accuracy': correct}

    def after_update(self, params: Any, extra: Any, step: jax.Array) -> Any:
        """Nothing follows an update: ``extra`` as it is."""
        return extra

    @functools.cached_property
    def predictors(self) -> Generators:
        """What writes answers; its programs compile at first use.

        Raises:
          ConfigError: no such format of dialogues or tokenizer, or one with more tokens than the
            model has.
        """
        config = self._config
        tokenizer = self._tokenizer or LanguageTokenizer.load(config.text.tokenizer)
        size = self.model.text.size.vocabulary
        if tokenizer.vocab_size > size:
            raise ConfigError(
                f'{tokenizer.name} has {tokenizer.vocab_size} tokens, the model a vocabulary of '
                f'{size}. Set config.model.text.vocabulary, or another config.text.tokenizer.'
            )
        return Generators(
            model=self.model,
            front_end=self._front_end,
            vectors_of_frames=self.vectors_of_frames,
            dialogue=Dialogue(config.data.text.dialogue, tokenizer),
            max_windows=config.data.max_windows,
            prefix=self._prefix,
            mesh=self._mesh,
        )


def next_tokens(token_ids_bt, segments_bt, loss_mask_bt) -> tuple[jax.Array, jax.Array]:
    """What each position is to predict, and whether it is: the next token of its own sequence.

    Returns:
      (int32 [b, t], bool [b, t]). The first token of a sequence follows nothing and is not
      predicted, whatever ``loss_mask_bt`` says.
    """

    def following(x):
        return jnp.pad(x[:, 1:], ((0, 0), (0, 1)))

    counts = following(loss_mask_bt) & (following(segments_bt) == segments_bt)
    return following(token_ids_bt), counts


def prefix_of(segments_bt, loss_mask_bt) -> jax.Array:
    """bool [b, t]: the positions of a sequence before its first token that is to be predicted."""
    answered = jnp.cumsum(loss_mask_bt, axis=1, dtype=jnp.int32)
    starts = jnp.diff(segments_bt, axis=1, prepend=0) != 0
    before = jax.lax.cummax(jnp.where(starts, answered - loss_mask_bt, 0), axis=1)
    return (answered == before) & (segments_bt > 0)


def token_loss(config: ConfigDict) -> Callable[..., TokenSums]:
    """``token_cross_entropy`` as ``config.task`` wants it, inside ``activation_axes``.

    Raises:
      ConfigError: a chunk below 1, a share out of 0 to 1, or a weight below 0.
    """
    task = config.task
    if task.token_chunk < 1:
        raise ConfigError(f'config.task.token_chunk is {task.token_chunk}; it must be at least 1.')
    if not 0 <= task.label_smoothing < 1:
        raise ConfigError(f'config.task.label_smoothing is {task.label_smoothing}; it is 0 to 1.')
    if task.z_loss < 0:
        raise ConfigError(f'config.task.z_loss is {task.z_loss}; it cannot be below 0.')
    options = {
        'chunk': task.token_chunk,
        'label_smoothing': task.label_smoothing,
        'z_loss': task.z_loss,
    }

    def of(tokens_btd, head_vd, targets_bt, weights_bt, softcap=None):
        split = [axes_of(name, size) for name, size in zip(('batch', 'length'), targets_bt.shape)]
        with jax.named_scope('objective'):
            return token_cross_entropy(
                tokens_btd,
                head_vd,
                targets_bt,
                weights_bt,
                softcap=softcap,
                mesh=current_mesh(),
                split=split,
                **options,
            )

    return of
