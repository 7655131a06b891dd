"""LAION-CLAP as its own package stores it: HTS-AT, with or without fusion, and RoBERTa.

Its .pt files become a folder by ``python -m alm_jax.interop.from_torch 630k-best.pt DST
--model_type laion_clap``, run where torch is. tokenizer.json of roberta-base goes beside.
"""

import functools

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.interop import clap as clap_model
from alm_jax.interop import names
from alm_jax.interop.clap import Features
from alm_jax.interop.families import bert, clap
from alm_jax.interop.family import Config, Family
from alm_jax.interop.tensor_files import read_config
from alm_jax.models.two_tower import TwoTower

# create_htsat_model of laion_clap.clap_module.htsat.
AUDIO_MODELS = {
    'HTSAT-tiny': {},
    'HTSAT-base': {'patch_embeds_hidden_size': 128, 'depths': [2, 2, 12, 2]},
    'HTSAT-large': {'patch_embeds_hidden_size': 256, 'depths': [2, 2, 12, 2]},
}
TEXT_MODEL = 'roberta'
FEATURES = 'preprocessor_config.json'


class LaionClap(clap_model.Clap):
    """As Clap; without a preprocessor_config.json, with the package's front end.

    The package rounds waveforms to int16 before it embeds them, and shrinks long clips as its
    torchvision does, with antialiasing in later versions; neither is done here.
    """

    @functools.cached_property
    def features(self) -> Features:
        """Of preprocessor_config.json, else the package's: 10 s, 50 Hz to 14 kHz."""
        if (self.folder / FEATURES).is_file():
            return Features.of(read_config(self.folder, FEATURES))
        truncation = 'fusion' if self.module.audio.fusion else 'rand_trunc'
        return Features.of({'truncation': truncation, 'frequency_min': 50})


def clap_config(config: Config) -> Config:
    """The ClapConfig that says the same.

    Args:
      config: 'amodel', 'tmodel' and 'enable_fusion' as of CLAP_Module; 'audio_config',
        'text_config' and 'projection_dim' as of a ClapConfig overrule them.

    Raises:
      ConfigError: another audio or text model.
    """
    name = config.get('amodel', 'HTSAT-tiny')
    audio = config_lib.choose(AUDIO_MODELS, name, where='amodel')
    if config.get('tmodel', TEXT_MODEL) != TEXT_MODEL:
        raise ConfigError(f'config.json: tmodel {config["tmodel"]!r} is not {TEXT_MODEL!r}.')
    fusion = {'enable_fusion': config.get('enable_fusion', False)}
    # roberta-base, whose norms have another epsilon than RobertaConfig's default.
    text = {'layer_norm_eps': 1e-5, 'type_vocab_size': 1}
    return {
        'projection_dim': config.get('projection_dim', 512),
        'audio_config': {**audio, **fusion, **config.get('audio_config', {})},
        'text_config': {**text, **config.get('text_config', {})},
    }


def module(config: Config) -> TwoTower:
    """The two towers."""
    return clap.module(clap_config(config))


def inputs(config: Config) -> tuple:
    """(log-mel, frames, token ids, token mask) of one pair."""
    return clap.inputs(clap_config(config))


def block_table(theirs: str, ours: str) -> names.Table:
    """One Swin block."""
    attention = tuple(f'{ours}/attn/{name}' for name in ('query', 'key', 'value'))
    table = f'{theirs}.attn.relative_position_bias_table'
    return [
        *names.norm(f'{theirs}.norm1', f'{ours}/attn_norm'),
        *names.array(table, f'{ours}/relative_position_bias'),
        *names.fused_linear(f'{theirs}.attn.qkv', attention),
        *names.linear(f'{theirs}.attn.proj', f'{ours}/attn/out'),
        *names.norm(f'{theirs}.norm2', f'{ours}/mlp_norm'),
        *names.linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/down'),
    ]


def table(config: Config) -> names.Table:
    """Of laion_clap's CLAP."""
    audio = clap_config(config)['audio_config']
    rules = names.under(clap.audio_table(audio, block_table, 'bn0'), 'audio_branch.', 'audio/')
    rules += names.under(bert.table(config), 'text_branch.', 'text/')
    for part in ('audio', 'text'):
        for number, name in ((0, 'linear'), (2, 'expand')):
            rules += names.linear(f'{part}_projection.{number}', f'{part}_projection/{name}')
    return [
        *rules,
        *names.array('logit_scale_a', 'logit_scale'),
        *names.array('logit_scale_t', 'text_logit_scale'),
    ]


UNUSED = (
    # A function of the sizes, counts of batches, and the front end's windows and filters.
    r'.*\.(relative_position_index|attn_mask|num_batches_tracked|position_ids|token_type_ids)',
    r'audio_branch\.(spectrogram_extractor|logmel_extractor)\..*',
    # HTS-AT's own classifier, and the further projections of the loss: no part of an embedding.
    r'audio_branch\.(tscam_conv|head)\..*',
    r'(audio|text)_transform\..*',
)
FAMILIES = (
    Family(
        'LAION-CLAP',
        ('laion_clap',),
        module,
        inputs,
        table,
        UNUSED,
        model=LaionClap,
        reference='laion-clap 1.1.7 CLAP',
    ),
)
