"""Pengi under its own names (microsoft/Pengi, base.pth): MS-CLAP's towers, two mappers, GPT-2.

UNPROVEN as a whole: its code is in no package. Its parts are those of msclap, and are compared with
them. base.pth becomes a folder by ``python -m alm_jax.interop.from_torch base.pth DST --model_type
pengi``; tokenizer.json of gpt2 goes beside, and that of openai/clip-vit-base-patch16 as
prompt_tokenizer.json. config.json may have the keys of base.yml; 'audio_config', 'text_config' and
'decoder_config' are those of a ClapAudioConfig, a CLIPTextConfig and a GPT2Config.
"""

import jax.numpy as jnp

from alm_jax.config import ConfigError
from alm_jax.interop import names
from alm_jax.interop.families import clip_text, gpt2, msclap
from alm_jax.interop.family import Config, Family
from alm_jax.interop.msclap import PengiModel, completed
from alm_jax.models.clapcap import PrefixMapper
from alm_jax.models.pengi import Pengi
from alm_jax.models.projection import Projection

TEXT = 'caption_encoder.'


def module(config: Config) -> Pengi:
    """The whole."""
    config = completed(config)
    if config['mapping_type'] != 'transformer' or not config.get('use_text_model', True):
        raise ConfigError('config.json: only mapping_type transformer with use_text_model is read.')
    decoder = gpt2.module(config.get('decoder_config', {}))

    def projection():
        return Projection(config['d_proj'], 'residual', norm_epsilon=msclap.EPSILON)

    def mapper():
        lengths = (config['prefix_length'], config['prefix_length_clip'])
        return PrefixMapper(*lengths, decoder.size.width, config['num_layers'] // 2)

    return Pengi(
        audio=msclap.audio_encoder(config),
        text=clip_text.module(config.get('text_config', {})),
        audio_projection=projection(),
        text_projection=projection(),
        audio_mapper=mapper(),
        text_mapper=mapper(),
        decoder=decoder,
        normalise=config['normalize_prefix'],
    )


def inputs(config: Config) -> tuple:
    """(log-mel, prompt ids, prompt mask, token ids) of one clip."""
    mel, _, ids, mask = msclap.inputs(config)
    return mel, ids, mask, jnp.zeros((1, 4), jnp.int32)


def table(config: Config) -> names.Table:
    """Of PENGI."""
    prompts = clip_text.table({'architectures': ['CLIPTextModel']})
    decoder = gpt2.table(config.get('decoder_config', {}))
    return [
        *names.under(msclap.audio_table(config), msclap.AUDIO),
        *names.linear(f'{TEXT}clip_text_projection', 'text/projection'),  # before CLIP's own name
        *names.under(prompts, f'{TEXT}base.', 'text/'),
        *names.under(msclap.projection_table('text_projection'), TEXT),
        *names.under(msclap.mapper_table(), 'caption_decoder.audio_project.', 'audio_mapper/'),
        *names.under(msclap.mapper_table(), 'caption_decoder.text_project.', 'text_mapper/'),
        *names.under(decoder, 'caption_decoder.gpt.', 'decoder/'),
    ]


# As MS-CLAP's: functions of the sizes, the front end, HTS-AT's classifier, masks, the tied head.
UNUSED = (
    r'.*\.(relative_position_index|attn_mask|num_batches_tracked|position_ids)',
    r'.*\.(spectrogram_extractor|logmel_extractor)\..*',
    r'.*\.htsat\.(tscam_conv|head)\..*',
    r'caption_decoder\.gpt\.transformer\.h\.\d+\.attn\.(masked_)?bias',
    r'caption_decoder\.gpt\.lm_head\.weight',
)
FAMILIES = (
    Family(
        'Pengi',
        ('pengi',),
        module,
        inputs,
        table,
        UNUSED,
        model=PengiModel,
        reference='UNPROVEN as a whole; its parts by msclap 1.3.4',
    ),
)
