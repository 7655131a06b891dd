"""Two towers and a decoder of text that attends to what the audio tower heard.

For contrastive learning and captioning at once: CoCa (Yu et al. 2022,
https://arxiv.org/abs/2205.01917) and, for audio, Cacophony (Zhu et al. 2024,
https://arxiv.org/abs/2402.06986).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers.dense import Dense
from alm_jax.models.text import whisper_decoder
from alm_jax.models.two_tower import TwoTower, build_two_tower, unit_norm


class CaptioningTowers(TwoTower, kw_only=True):
    """Parameters: those of TwoTower, ``decoder`` and ``matching``.

    Attributes:
      decoder: (token_ids_bt, token_mask_bt, memory_bsd, memory_mask_bs, logits_at_bn=, train=) ->
        {'tokens': [b, t, d], ...}; its head is its ``token_embedding``.
    """

    decoder: whisper_decoder.WhisperDecoder

    def setup(self):
        super().setup()
        self.matching = Dense(1)

    def __call__(self, mel_btf, num_frames_b, token_ids_bt, token_mask_bt, train: bool = False):
        """Every part once: what ``read`` gives, 'tokens' of ``write``, and 'match'."""
        found = self.read(mel_btf, num_frames_b, token_ids_bt, token_mask_bt, train)
        text = (token_ids_bt, token_mask_bt, found['audio'], found['audio_mask'], train)
        return {**found, **self.scales(), 'tokens': self.write(*text), 'match': self.match(*text)}

    def read(self, mel_btf, num_frames_b, token_ids_bt, token_mask_bt, train: bool = False):
        """Embeds clips and texts, and keeps what the decoder attends to.

        Args:
          mel_btf, num_frames_b, token_ids_bt, token_mask_bt, train: see TwoTower.

        Returns:
          'audio_embedding' and 'text_embedding' float32 [b, embed_dim] of unit norm; 'audio'
          [b, s, e], vectors of each clip in time, and 'audio_mask' bool [b, s].
        """
        heard = self.audio(mel_btf, num_frames_b, train)
        return {
            'audio_embedding': unit_norm(self.audio_projection(heard['pooled'], train)),
            'text_embedding': self.embed_text(token_ids_bt, token_mask_bt, train),
            'audio': heard.get('frames', heard.get('tokens')),
            'audio_mask': heard['frame_mask'],
        }

    def write(self, token_ids_bt, token_mask_bt, audio_bse, audio_mask_bs, train: bool = False):
        """[b, t, d], from which the decoder's head tells the token after each position."""
        nowhere = jnp.zeros((len(token_ids_bt), 0), jnp.int32)
        memory = audio_bse.astype(self.dtype), audio_mask_bs
        text = (token_ids_bt, token_mask_bt, *memory)
        return self.decoder(*text, logits_at_bn=nowhere, train=train)['tokens']

    def match(self, token_ids_bt, token_mask_bt, audio_bse, audio_mask_bs, train: bool = False):
        """float32 [b]: the logit of each text belonging to the clip beside it.

        It is told from the last token, which has seen all of both.
        """
        tokens = self.write(token_ids_bt, token_mask_bt, audio_bse, audio_mask_bs, train)
        last = jnp.max(jnp.where(token_mask_bt, jnp.arange(tokens.shape[1]), 0), axis=1)
        last = jnp.take_along_axis(tokens, last[:, None, None], axis=1)[:, 0]
        return self.matching(last)[:, 0].astype(jnp.float32)


def build_captioning_towers(
    config_model: Mapping[str, Any], dtype: DTypeLike = jnp.float32, remat: str = 'none'
) -> CaptioningTowers:
    """The model that ``config.model`` describes.

    Args:
      config_model: as ``build_two_tower`` has it, and decoder: the attributes of
        ``whisper_decoder.Size``, of which vocabulary is the tokenizer's, and dropout.
      dtype, remat: see there; remat is the decoder's too.

    Raises:
      ConfigError: see there.
    """
    towers = build_two_tower(config_model, dtype, remat)
    options = dict(config_model['decoder'])
    dropout = options.pop('dropout', 0.0)
    size = config_lib.call_with(whisper_decoder.Size, options, where='model.decoder')
    decoder = whisper_decoder.WhisperDecoder(size, dropout, remat, dtype=dtype)
    attributes = {name: getattr(towers, name) for name in ('audio', 'text', 'embed_dim')}
    attributes |= {name: getattr(towers, name) for name in ('projection', 'dropout', 'dtype')}
    return CaptioningTowers(decoder=decoder, **attributes)
