"""AST as transformers stores it: ASTModel and ASTForAudioClassification."""

import functools

import jax.numpy as jnp

from alm_jax import config as config_lib
from alm_jax.interop import names, vit_tables
from alm_jax.interop.audio_encoder import AudioEncoder
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.interop.fbank import Fbank
from alm_jax.interop.tensor_files import read_config
from alm_jax.models.audio.spectrogram_transformer import Size, SpectrogramTransformer


def _classes(config: Config) -> int:
    """Of the head; 0 for ASTModel."""
    if not any('Classification' in name for name in config.get('architectures') or ()):
        return 0
    return len(config.get('id2label') or range(2))  # two, which transformers does not write down


def _grid(config: Config) -> tuple[int, int]:
    """(steps, bands) of positions."""
    patch = config.get('patch_size', 16)
    frames, bins = config.get('max_length', 1024), config.get('num_mel_bins', 128)
    steps = (frames - patch) // config.get('time_stride', 10) + 1
    return steps, (bins - patch) // config.get('frequency_stride', 10) + 1


def module(config: Config) -> SpectrogramTransformer:
    """The encoder that an ASTConfig describes, with the head if it has one."""
    patch = config.get('patch_size', 16)
    epsilon = config.get('layer_norm_eps', 1e-12)
    name = config.get('hidden_act', 'gelu')
    return SpectrogramTransformer(
        Size(
            width=config.get('hidden_size', 768),
            depth=config.get('num_hidden_layers', 12),
            heads=config.get('num_attention_heads', 12),
            mlp_width=config.get('intermediate_size', 3072),
            activation=config_lib.choose(ACTIVATIONS, name, where='hidden_act'),
            norm_epsilon=epsilon,
            biases=(*vit_tables.QKV * config.get('qkv_bias', True), 'out'),
        ),
        patch=(patch, patch),
        stride=(config.get('time_stride', 10), config.get('frequency_stride', 10)),
        positions='absolute',
        grid=_grid(config),
        stretch=True,
        prefix=2,
        masked=False,
        partial=False,
        pool='prefix',
        classes=_classes(config),
        head_norm=epsilon,
    )


def inputs(config: Config) -> tuple:
    """(log-mel,) of one window."""
    return (jnp.zeros((1, config.get('max_length', 1024), config.get('num_mel_bins', 128))),)


def _block(q: str, k: str, v: str, out: str, up: str, down: str) -> names.Table:
    """One block; the names of its linear layers changed in transformers 5."""
    parts = {q: 'attn/query', k: 'attn/key', v: 'attn/value', out: 'attn/out'}
    parts |= {up: 'mlp/up', down: 'mlp/down'}
    return [
        *names.norm('layernorm_before', 'attn_norm'),
        *names.norm('layernorm_after', 'mlp_norm'),
        *(rule for theirs, ours in parts.items() for rule in names.linear(theirs, ours)),
    ]


def table(config: Config) -> names.Table:
    """Of ASTModel, and of ASTForAudioClassification where ``architectures`` says so."""
    place = 'attention.attention.'
    stored = _block(
        f'{place}query',
        f'{place}key',
        f'{place}value',
        'attention.output.dense',
        'intermediate.dense',
        'output.dense',
    )
    place = 'attention.'
    in_memory = _block(
        f'{place}q_proj', f'{place}k_proj', f'{place}v_proj', f'{place}o_proj', 'mlp.fc1', 'mlp.fc2'
    )
    rules = [
        *vit_tables.prefix('embeddings.cls_token', 'embeddings.distillation_token'),
        *vit_tables.positions('embeddings.position_embeddings', _grid(config)[1], 2, pictures=True),
        *vit_tables.patches_of_pictures('embeddings.patch_embeddings.projection'),
        *names.under(stored, 'encoder.layer.{}.', 'layers/{}/'),
        *names.under(in_memory, 'layers.{}.', 'layers/{}/'),
        *names.norm('layernorm', 'final_norm'),
    ]
    if not _classes(config):
        return rules
    return [
        *names.under(rules, 'audio_spectrogram_transformer.'),
        *names.norm('classifier.layernorm', 'head_norm'),
        *names.linear('classifier.dense', 'head'),
    ]


class Ast(AudioEncoder):
    """An AST checkpoint: ``encode``. As published, what fills the window is attended to."""

    @functools.cached_property
    def features(self) -> Fbank:
        """The front end that preprocessor_config.json names."""
        return Fbank.of(read_config(self.folder, 'preprocessor_config.json'))

    @property
    def sampling_rate(self) -> int:
        """Hz."""
        return self.features.front_end.sampling_rate

    def inputs(self, clips) -> tuple:
        """(log-mel,), each clip in a window of ``features.frames``."""
        return (self.features(clips),)


FAMILIES = (
    Family(
        'AST',
        ('audio-spectrogram-transformer',),
        module,
        inputs,
        table,
        model=Ast,
        reference='transformers ASTModel, ASTForAudioClassification',
    ),
)
