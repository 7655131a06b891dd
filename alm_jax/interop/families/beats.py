"""BEATs under its original names, those of Microsoft's checkpoints and of speechbrain's BEATs.

Its config.json has the keys of the checkpoint's own ``cfg``, at its top or under 'cfg', each with
the value of BEATs_iter1 to iter3+ by default. A fine-tuned model has ``finetuned_model`` set.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from alm_jax import config as config_lib
from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS
from alm_jax.config import ConfigError
from alm_jax.interop import names
from alm_jax.interop.audio_encoder import AudioEncoder
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.models.audio.beats import Beats, Size
from alm_jax.models.layers.attention import PROJECTIONS

FRONT_END = PRESETS['beats']
PATCHES_STEP = 8  # batches are padded to a multiple of so many time steps; few lengths are compiled


def module(config: Config) -> Beats:
    """The encoder that a cfg describes."""
    config = {**config.get('cfg', {}), **config}
    if config.get('layer_norm_first'):
        raise ConfigError('config.json: layer_norm_first is true; no published BEATs has it.')
    activation = config.get('activation_fn', 'gelu')
    relative = config.get('relative_position_embedding', True)
    size = Size()
    return Beats(
        Size(
            width=config.get('encoder_embed_dim', size.width),
            depth=config.get('encoder_layers', size.depth),
            heads=config.get('encoder_attention_heads', size.heads),
            mlp_width=config.get('encoder_ffn_embed_dim', 3072),
            embedding=config.get('embed_dim', size.embedding),
            patch=config.get('input_patch_size', size.patch),
            patch_bias=config.get('conv_bias', size.patch_bias),
            position_size=config.get('conv_pos', size.position_size),
            position_groups=config.get('conv_pos_groups', size.position_groups),
            buckets=config.get('num_buckets', size.buckets) if relative else 0,
            max_distance=config.get('max_distance', size.max_distance),
            bias_gate=config.get('gru_rel_pos', size.bias_gate),
            deep_norm=config.get('deep_norm', size.deep_norm),
            activation=config_lib.choose(ACTIVATIONS, activation, where='activation_fn'),
            classes=config.get('predictor_class', 527) if config.get('finetuned_model') else None,
        )
    )


def inputs(config: Config) -> tuple:
    """(fbank,) of one time step."""
    size = module(config).variant
    return (jnp.zeros((1, size.patch, size.mel_bins)),)


def table(config: Config) -> names.Table:
    """Of BEATs."""
    theirs, ours = 'encoder.layers.{}', 'layers/{}'
    rules = [
        *names.conv('patch_embedding', 'patch_embedding'),
        *names.norm('layer_norm', 'patch_norm'),
        *names.linear('post_extract_proj', 'projection'),
        *position_rules('encoder.pos_conv.0'),
        *names.norm('encoder.layer_norm', 'embedding_norm'),
        *_bias_rules(module(config).variant.depth),
        *names.linear(f'{theirs}.self_attn.grep_linear', f'{ours}/attn/bias_gate/proj'),
        names.Rule(
            (f'{theirs}.self_attn.grep_a',),
            (f'{ours}/attn/bias_gate/scale',),
            lambda arrays: [arrays[0].reshape(-1)],
            lambda arrays: [arrays[0].reshape(1, -1, 1, 1)],
        ),
        *names.norm(f'{theirs}.self_attn_layer_norm', f'{ours}/attn_norm'),
        *names.linear(f'{theirs}.fc1', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.fc2', f'{ours}/mlp/down'),
        *names.norm(f'{theirs}.final_layer_norm', f'{ours}/mlp_norm'),
        *names.linear('predictor', 'classifier'),
    ]
    for part in PROJECTIONS:
        their = 'out_proj' if part == 'out' else f'{part[0]}_proj'
        rules += names.linear(f'{theirs}.self_attn.{their}', f'{ours}/attn/{part}')
    return rules


def position_rules(theirs: str) -> names.Table:
    """The weight-normed convolution, by torch's older names, which are written, and its newer."""
    rules = names.array(f'{theirs}.bias', 'positions/bias')
    for length, vector in (
        ('weight_g', 'weight_v'),
        ('parametrizations.weight.original0', 'parametrizations.weight.original1'),
    ):
        rules += [
            names.Rule(
                (f'{theirs}.{length}',),
                ('positions/kernel_g',),
                lambda arrays: [arrays[0].reshape(-1)],
                lambda arrays: [arrays[0].reshape(1, 1, -1)],
            ),
            names.Rule((f'{theirs}.{vector}',), ('positions/kernel_v',), _turned, _turned),
        ]
    return rules


def _turned(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """[out, in, size] is our [size, in, out]."""
    return [arrays[0].transpose(2, 1, 0)]


def _bias_rules(depth: int) -> names.Table:
    """One table, which the files hold once for every layer, or for the first alone."""

    def rule(layers: int) -> names.Rule:
        theirs = 'encoder.layers.{}.self_attn.relative_attention_bias.weight'
        return names.Rule(
            tuple(theirs.format(layer) for layer in range(layers)),
            ('relative_bias/embedding',),
            lambda arrays: arrays[:1],
            lambda arrays: [arrays[0]] * layers,
        )

    return [rule(depth), rule(1)]


class BeatsEncoder(AudioEncoder):
    """The encoder with its front end. ``encode`` gives each clip what the original gives it alone.

    By itself a clip has no patch that it fills in part. In a padded batch of the original it may
    have one, and there the mask also depends on the length of the batch; for that, call the model
    with the fbank of the padded waveforms and counts of frames. A clip shorter than a patch
    (0.175 s), which the original refuses, is zero-padded to it.
    """

    @property
    def sampling_rate(self) -> int:
        return FRONT_END.sampling_rate

    def inputs(self, clips):
        """(fbank [b, t, f], frames [b])."""
        patch = self.module.variant.patch
        least = FRONT_END.win_length + (patch - 1) * FRONT_END.hop_length
        mels = []
        for clip in clips:
            mel = log_mel(np.pad(clip, (0, max(least - len(clip), 0)))[None], FRONT_END)[0]
            mels.append(mel[: len(mel) // patch * patch])
        frames = np.array([len(mel) for mel in mels], np.int32)
        step = patch * PATCHES_STEP
        length = -(-frames.max() // step) * step
        return np.stack([np.pad(m, ((0, length - len(m)), (0, 0))) for m in mels]), frames


FAMILIES = (
    Family(
        'BEATs',
        ('beats',),
        module,
        inputs,
        table,
        model=BeatsEncoder,
        reference='speechbrain BEATs',
    ),
)
