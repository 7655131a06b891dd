"""Audio and text towers trained to agree: int16 PCM in, contrastive loss out, all in one jit."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from alm_jax.audio import augment, presets, windows
from alm_jax.audio.log_mel_device import log_mel_device
from alm_jax.config import ConfigError, choose
from alm_jax.models.layers.placement import activation_axes
from alm_jax.models.two_tower import build_two_tower
from alm_jax.objectives import blockwise, contrastive
from alm_jax.tasks.predictors import Predictors
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import param_sharding, sharding

MODELS = {'two_tower': build_two_tower}
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

    def __init__(
        self, config: ConfigDict, *, tokenizer: Tokenizer | None = None, mesh: Mesh | None = None
    ):
        """See ``build_task``."""
        self.front_end = choose(presets.PRESETS, config.front_end.preset, where='front_end.preset')
        self.sampling_rate = self.front_end.sampling_rate
        self.window_samples = round(config.front_end.seconds * self.sampling_rate)
        if self.window_samples < self.front_end.n_fft:
            raise ConfigError(
                f'config.front_end.seconds is {config.front_end.seconds}; the window must hold '
                f'{self.front_end.n_fft} samples of {self.sampling_rate} Hz.'
            )
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
        build = choose(MODELS, config.model.family, where='model.family')
        self.model = build(config.model, dtype=jnp.dtype(config.compute_dtype), remat=config.remat)
        self._objective = _objective(config, mesh)
        self._augment = _checked_augment(config)
        self._config = config
        self._tokenizer = tokenizer
        self._mesh = mesh
        rules = config.sharding.activations
        self._axes = {} if mesh is None else param_sharding.logical_axes(rules, mesh)

    def init(self, rng: jax.Array, batch_spec: Mapping[str, Any]) -> tuple[Any, Any]:
        """(params, extra) drawn from ``rng``; ``batch_spec`` gives the text length."""
        mel = jnp.zeros((1, self.front_end.num_frames(self.window_samples), self.front_end.n_mels))
        tokens = jnp.zeros((1, batch_spec['token_ids'].shape[1]), jnp.int32)
        frames = jnp.full((1,), mel.shape[1], jnp.int32)
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
        with jax.named_scope('front_end'):
            mel, num_frames = self._features(batch, wave_rng)
            mel = augment.spec_augment(
                mel_rng,
                mel,
                num_frames,
                time_masks=self._augment.time_masks,
                time_mask_frames=self._augment.time_mask_frames,
                freq_masks=self._augment.freq_masks,
                freq_mask_bins=self._augment.freq_mask_bins,
            )
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
        front_end_sha256 = presets.front_end_sha256(
            self.front_end,
            window_samples=self.window_samples,
            policy=windows.EVALUATION_POLICY,
        )
        return Predictors(
            embed_windows=self._embed_windows,
            embed_tokens=self._embed_tokens,
            tokenizer=self._tokenizer or _load_tokenizer(self._config),
            sampling_rate=self.sampling_rate,
            window_samples=self.window_samples,
            front_end_sha256=front_end_sha256,
            mesh=self._mesh,
        )

    def _features(self, batch, rng):
        """(float32 log-mel [b, t, n_mels], valid frames int32 [b])."""
        if 'mel' in batch:
            return batch['mel'].astype(jnp.float32), batch['num_frames']
        gain_rng, shift_rng, noise_rng = jax.random.split(rng, 3)
        num_samples = batch['num_samples']
        shift = round(self._augment.shift_seconds * self.sampling_rate)
        x = _from_pcm(batch['pcm'])
        x = augment.gain(gain_rng, x, self._augment.gain_db)
        x = augment.time_shift(shift_rng, x, num_samples, shift)
        x = augment.add_noise(noise_rng, x, num_samples, self._augment.noise_snr_db)
        return self._sharded_log_mel(x), self.front_end.num_frames(num_samples)

    def _sharded_log_mel(self, x_bn):
        """Each device does its own rows: the partitioner would gather the batch for an FFT."""
        log_mel = functools.partial(log_mel_device, front_end=self.front_end)
        if self._mesh is None:
            return log_mel(x_bn)
        rows = PartitionSpec(sharding.batch_axes(self._mesh))
        return jax.shard_map(log_mel, mesh=self._mesh, in_specs=rows, out_specs=rows)(x_bn)

    def _embed_windows(self, params, extra, pcm, num_samples):
        mel = log_mel_device(_from_pcm(pcm), self.front_end)
        num_frames = self.front_end.num_frames(num_samples)
        return self.model.apply({'params': params, **extra}, mel, num_frames, method='embed_audio')

    def _embed_tokens(self, params, extra, token_ids, token_mask):
        return self.model.apply(
            {'params': params, **extra}, token_ids, token_mask, method='embed_text'
        )


def _from_pcm(pcm):
    return pcm.astype(jnp.float32) / 32768.0


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


def _checked_augment(config: ConfigDict) -> ConfigDict:
    if config.front_end.on not in ('device', 'host'):
        raise ConfigError(f"config.front_end.on is {config.front_end.on!r}: 'device' or 'host'.")
    if config.front_end.on == 'host':
        for name in ('gain_db', 'shift_seconds', 'noise_snr_db'):
            if config.augment[name]:
                raise ConfigError(
                    f'config.augment.{name} changes waveforms on the device, which a host front '
                    "end does not send. Set it to its default, or front_end.on to 'device'."
                )
    return config.augment


def _load_tokenizer(config: ConfigDict) -> Tokenizer:
    path = config.text.tokenizer
    if path.startswith('packaged:'):
        raise ConfigError(
            f'config.text.tokenizer is {path!r}; give build_task the fetched tokenizer or its path.'
        )
    return Tokenizer.load(path, config.text.lengths)
