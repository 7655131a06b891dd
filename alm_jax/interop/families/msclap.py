"""MS-CLAP under its own names: CLAP of 2022 and 2023, and ClapCap (msclap on PyPI).

Its .pth files become a folder by ``python -m alm_jax.interop.from_torch CLAP_weights_2023.pth DST
--model_type msclap_2023``, run where torch is (CLAP_weights_2022.pth: msclap_2022,
clapcap_weights_2023.pth: msclap_clapcap). tokenizer.json of gpt2, in 2022 of bert-base-uncased,
goes beside. config.json may have the keys of the package's own configuration, and 'audio_config'
and 'text_config': those of a ClapAudioConfig or of Cnn14, of a GPT2Config or of a BertConfig.
"""

import jax.numpy as jnp

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.interop import msclap, names
from alm_jax.interop.families import bert, clap, cnn14, gpt2, laion_clap
from alm_jax.interop.family import Config, Family
from alm_jax.interop.msclap import completed
from alm_jax.models.clapcap import ClapCap, PrefixMapper
from alm_jax.models.projection import Projection
from alm_jax.models.text.picked_token import PickedToken
from alm_jax.models.two_tower import TwoTower

EPSILON = 1e-5  # of the projections' norms
AUDIO, TEXT = 'audio_encoder.', 'caption_encoder.'


def _choose(config: Config, key: str, **options):
    return config_lib.choose(options, completed(config)[key], where=key)


def _audio_config(config: Config) -> Config:
    config = completed(config)
    if config['audioenc_name'] == 'HTSAT':
        return config.get('audio_config', {})
    heads = {'out_emb': config['out_emb'], 'classes_num': config['num_classes']}
    return {**heads, 'mel_bins': config['mel_bins'], **config.get('audio_config', {})}


def audio_encoder(config: Config):
    """Cnn14 or HTS-AT, whose size is not configured in the package."""
    make = _choose(config, 'audioenc_name', Cnn14=cnn14.module, HTSAT=clap.audio_encoder)
    return make(_audio_config(config))


def audio_table(config: Config) -> names.Table:
    """Of AudioEncoder: the encoder and its projection."""
    if completed(config)['audioenc_name'] == 'HTSAT':
        rules = clap.audio_table(_audio_config(config), laion_clap.block_table, 'bn0')
        rules = names.under(rules, 'base.htsat.', 'audio/')
    else:
        rules = names.under(cnn14.table(_audio_config(config)), 'base.', 'audio/')
    return [*rules, *projection_table('audio_projection')]


def projection_table(ours: str) -> names.Table:
    """Of Projection."""
    return [
        *names.linear('projection.linear1', f'{ours}/linear'),
        *names.linear('projection.linear2', f'{ours}/expand'),
        *names.norm('projection.layer_norm', f'{ours}/norm'),
    ]


def _bert_encoder(config: Config) -> PickedToken:
    return PickedToken(bert.module(config, pooler=False), 'first')


def _gpt2_encoder(config: Config) -> PickedToken:
    return PickedToken(gpt2.module({**config, 'architectures': ['GPT2Model']}), 'last')


def module(config: Config) -> TwoTower:
    """The two towers."""
    make = {'bert-base-uncased': _bert_encoder, 'gpt2': _gpt2_encoder}
    return TwoTower(
        audio=audio_encoder(config),
        text=_choose(config, 'text_model', **make)(config.get('text_config', {})),
        embed_dim=completed(config)['d_proj'],
        projection='residual',
        projection_epsilon=EPSILON,
        logit_bias_init=None,
    )


def inputs(config: Config) -> tuple:
    """(log-mel, frames, token ids, token mask) of one pair."""
    encoder = audio_encoder(config)
    frames = 2 * getattr(encoder.variant, 'image', 16)
    mel = jnp.zeros((1, frames, encoder.variant.mel_bins))
    return mel, None, jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)


def table(config: Config) -> names.Table:
    """Of CLAP."""
    text = _choose(config, 'text_model', **{'bert-base-uncased': bert.table, 'gpt2': _gpt2_table})
    rules = names.under(text(config), 'base.', 'text/encoder/')
    return [
        *names.under(audio_table(config), AUDIO),
        *names.under([*rules, *projection_table('text_projection')], TEXT),
        *names.array('logit_scale', 'logit_scale'),
    ]


def _gpt2_table(config: Config) -> names.Table:
    del config
    return gpt2.table({'architectures': ['GPT2Model']})


def clapcap(config: Config) -> ClapCap:
    """The captioner."""
    config = completed(config)
    if config['mapping_type'] != 'transformer':
        raise ConfigError(
            f"config.json: mapping_type {config['mapping_type']!r}, not 'transformer'."
        )
    decoder = gpt2.module(config.get('text_config', {}))
    return ClapCap(
        audio=audio_encoder(config),
        audio_projection=Projection(config['d_proj'], 'residual', norm_epsilon=EPSILON),
        mapper=PrefixMapper(
            config['prefix_length'],
            config['prefix_length_clip'],
            decoder.size.width,
            config['num_layers'],
        ),
        decoder=decoder,
        normalise=config['normalize_prefix'],
    )


def clapcap_inputs(config: Config) -> tuple:
    """(log-mel, token ids) of one clip."""
    mel, _, ids, _ = inputs(config)
    return mel, ids


def mapper_table() -> names.Table:
    """Of TransformerMapper."""
    theirs, ours = 'transformer.layers.{}', 'layers/{}'
    keys_values = tuple(f'{ours}/attn/{name}' for name in ('key', 'value'))
    return [
        *names.linear('linear', 'linear'),
        *names.array('prefix_const', 'queries'),
        *names.norm(f'{theirs}.norm1', f'{ours}/attn_norm'),
        *names.linear(f'{theirs}.attn.to_queries', f'{ours}/attn/query'),
        *names.fused_linear(f'{theirs}.attn.to_keys_values', keys_values),
        *names.linear(f'{theirs}.attn.project', f'{ours}/attn/out'),
        *names.norm(f'{theirs}.norm2', f'{ours}/mlp_norm'),
        *names.linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/down'),
    ]


def clapcap_table(config: Config) -> names.Table:
    """Of ClapCaptionModel."""
    return [
        *names.under(audio_table(config), 'clap.'),
        *names.under(mapper_table(), 'clap_project.', 'mapper/'),
        *names.under(gpt2.table(config.get('text_config', {})), 'gpt.', 'decoder/'),
    ]


UNUSED = (
    # A function of the sizes, counts of batches, and the front end's windows and filters.
    r'.*\.(relative_position_index|attn_mask|num_batches_tracked|position_ids)',
    r'.*\.(spectrogram_extractor|logmel_extractor)\..*',
    # HTS-AT's own classifier and BERT's pooler: no part of an embedding.
    r'.*\.htsat\.(tscam_conv|head)\..*',
    r'caption_encoder\.base\.pooler\.dense\.(weight|bias)',
    # Causal masks, which older files store, and the head, which is GPT-2's token embedding.
    r'(gpt\.transformer|caption_encoder\.base)\.h\.\d+\.attn\.(masked_)?bias',
    r'gpt\.lm_head\.weight',
)
FAMILIES = (
    Family(
        'MS-CLAP',
        ('msclap_2022', 'msclap_2023'),
        module,
        inputs,
        table,
        UNUSED,
        model=msclap.MsClap,
        reference='msclap 1.3.4 CLAP',
    ),
    Family(
        'ClapCap',
        ('msclap_clapcap',),
        clapcap,
        clapcap_inputs,
        clapcap_table,
        UNUSED,
        model=msclap.ClapCapModel,
        reference='msclap 1.3.4 ClapCaptionModel',
    ),
)
