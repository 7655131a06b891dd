"""A language model that hears: an audio encoder, a connector, and a decoder of text.

Pengi (arXiv:2305.11834), LTU (arXiv:2305.10790), SALMONN (arXiv:2310.13289), Qwen2-Audio
(arXiv:2407.10759), Audio Flamingo 3 (arXiv:2507.08128) and Voxtral (arXiv:2507.13264) put vectors
of audio into the text where tokens would stand; Audio Flamingo 2 (arXiv:2503.03983) lets the text
attend to them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.models.audio.concatenated import Concatenated
from alm_jax.models.connectors import CONNECTORS
from alm_jax.models.gated_cross_attention import seen_clips
from alm_jax.models.layers import kv_cache
from alm_jax.models.text.decoder import Decoder
from alm_jax.models.text.language_models import build_decoder
from alm_jax.models.two_tower import AUDIO_ENCODERS

AUDIO = -1  # in token ids: here stands a vector of audio


class TwoHead(nn.Module):
    """Clips and texts that refer to them in, logits of the next tokens out.

    Parameters: ``audio``, ``connector``, ``text``.

    Attributes:
      audio: encoder (mel_ctf, num_frames_c, train) -> {'frames' or 'tokens' [c, n, e], ...}; its
        ``num_tokens`` says how many of these count.
      connector: of ``connectors``.
      text: the decoder.
      audio_id: what stands in token ids for one vector of audio.
    """

    audio: nn.Module
    connector: nn.Module
    text: Decoder
    audio_id: int = AUDIO

    def __call__(
        self,
        mel_bktf,
        num_frames_bk,
        token_ids_bt,
        segments_bt=None,
        *,
        prefix_bt=None,
        cache: kv_cache.Cache | None = None,
        logits_at_bn=None,
        train: bool = False,
    ) -> dict[str, Any]:
        """Reads texts with up to k clips each.

        Args:
          mel_bktf: [b, k, t', f] log-mel. A row may have several texts, and a text several clips;
            their order is that of the row. A long clip may be several windows.
          num_frames_bk: int [b, k], frames of each clip; 0 where there is none.
          token_ids_bt: int32 [b, t]. ``audio_id`` stands as often as the row's clips have vectors:
            the first one takes the first vector, and so on. Whether they are as many cannot be seen
            here; see ``num_vectors``.
          segments_bt: int32 [b, t], which of a row's texts a position belongs to, 0 being padding;
            or bool [b, t], one text with padding anywhere; None is one without padding.
          prefix_bt, cache, logits_at_bn: see Decoder.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'encoder', the encoder's outputs, of b * k clips; 'audio' [b, k, m, d], the connector's,
          and 'audio_mask' bool [b, k, m]; 'text', the decoder's; 'tokens' [b, t, d], its last
          after the final norm; 'logits' float32 [b, t or n, vocabulary], if its head makes them;
          'cache' if there was one.
        """
        b, k = num_frames_bk.shape
        mel_ctf = mel_bktf.reshape(b * k, *mel_bktf.shape[2:])
        outputs = self.listen(mel_ctf, num_frames_bk.reshape(b * k), train)
        for name in ('audio', 'audio_mask'):
            outputs[name] = outputs[name].reshape(b, k, *outputs[name].shape[1:])
        options = {'prefix_bt': prefix_bt, 'cache': cache, 'logits_at_bn': logits_at_bn}
        audio = outputs['audio'], outputs['audio_mask']
        return {**outputs, **self.read(*audio, token_ids_bt, segments_bt, train=train, **options)}

    def read(
        self,
        audio_bkmd,
        audio_mask_bkm,
        token_ids_bt,
        segments_bt=None,
        *,
        cache: kv_cache.Cache | None = None,
        **options,
    ) -> dict[str, Any]:
        """Reads texts beside clips that ``listen`` has heard: what else the model's call gives.

        Args:
          audio_bkmd, audio_mask_bkm: 'audio' and 'audio_mask' of each row's clips.
          token_ids_bt, segments_bt, cache, **options: see the call of the model.
        """
        k, m = audio_mask_bkm.shape[1:]
        audio, mask = (x.reshape(len(x), k * m, *x.shape[3:]) for x in (audio_bkmd, audio_mask_bkm))
        if self.audio_in_sequence:
            ids, vectors = put_audio(token_ids_bt, self.audio_id, audio, mask)
        else:
            here = token_ids_bt == self.audio_id
            ids = jnp.where(here, -1, token_ids_bt)
            vectors = jnp.broadcast_to(self.connector.marker(), (*ids.shape, self.text.size.width))
            one_text = cache is not None or _is_mask(segments_bt)
            segments = None if one_text else segments_bt
            seen_btk = seen_clips(here, segments, audio_mask_bkm.any(axis=2))
            seen = jnp.repeat(seen_btk, m, axis=2) & mask[:, None]
            options['gated'] = self.connector.gated(audio, seen)
        text = self._read(ids, segments_bt, embeddings_btd=vectors, cache=cache, **options)
        if cache is not None and not self.audio_in_sequence:
            text['cache']['memory_mask'] = mask
        return _shown(text)

    def write(
        self, token_ids_bt, token_mask_bt, *, audio_bkmd=None, audio_mask_bkm=None, **options
    ) -> dict[str, Any]:
        """``read`` where there is audio, ``extend`` without: the calls of ``decoding.generate``."""
        if audio_bkmd is None:
            return self.extend(token_ids_bt, token_mask_bt, **options)
        return self.read(audio_bkmd, audio_mask_bkm, token_ids_bt, token_mask_bt, **options)

    def extend(
        self, token_ids_bt, segments_bt=None, *, cache: kv_cache.Cache, logits_at_bn=None
    ) -> dict[str, Any]:
        """More text after a call with a cache, without more audio.

        Args:
          token_ids_bt: int32 [b, t], no audio among them.
          segments_bt: bool [b, t], or int32 of which only what is 0 counts; None is all.
          cache: of a call of the model or of this.
          logits_at_bn: see Decoder.

        Returns:
          'text', 'tokens', 'logits' and 'cache', as the call of the model.
        """
        gated = None
        if not self.audio_in_sequence:
            mask = cache['memory_mask']
            seen = jnp.broadcast_to(mask[:, None], (*token_ids_bt.shape, mask.shape[1]))
            gated = self.connector.gated(None, seen)
        options = {'cache': cache, 'gated': gated, 'logits_at_bn': logits_at_bn}
        return _shown(self._read(token_ids_bt, segments_bt, **options))

    @property
    def audio_in_sequence(self) -> bool:
        """Whether the vectors of audio stand in the text.

        Otherwise ``audio_id`` stands once for each clip, which is seen from there on.
        """
        return getattr(self.connector, 'in_sequence', True)

    def num_vectors(self, num_frames):
        """How often ``audio_id`` stands for a clip of so many frames: an int or a numpy array."""
        count = self.connector.num_vectors(self.audio.num_tokens(num_frames))
        return count * (num_frames > 0)

    def listen(self, mel_ctf, num_frames_c, train: bool = False) -> dict[str, Any]:
        """The audio's part alone: clips [c, t, f] -> 'encoder', 'audio', 'audio_mask'."""
        encoder = self.audio(mel_ctf, num_frames_c, train)
        x = encoder.get('frames', encoder.get('tokens'))
        counted = self.audio.num_tokens(num_frames_c) * (num_frames_c > 0)
        audio, mask = self.connector(x, jnp.arange(x.shape[1]) < counted[:, None])
        return {'encoder': encoder, 'audio': audio, 'audio_mask': mask}

    def empty_cache(self, batch: int, length: int) -> kv_cache.Cache:
        """For texts of so many positions, audio among them, see Decoder."""
        return self.text.empty_cache(batch, length)

    def one_by_one(self, params):
        """(module, parameters) whose ``extend`` is faster on a CPU, see Decoder."""
        if not self.audio_in_sequence:
            return self, params
        text, unrolled = self.text.one_by_one(params['text'])
        return self.clone(text=text), {**params, 'text': unrolled}

    def head_weights(self, params) -> jax.Array:
        """[vocabulary, d] of this module's parameters, see Decoder."""
        return self.text.head_weights(params['text'])

    def _read(self, token_ids_bt, segments_bt, **options):
        if _is_mask(segments_bt):
            return self.text(token_ids_bt, segments_bt, **options)
        return self.text(token_ids_bt, segments_bt=segments_bt, **options)


def _is_mask(segments_bt) -> bool:
    return segments_bt is not None and segments_bt.dtype == jnp.bool_


def _shown(text):
    names = ('tokens', 'logits', 'cache')
    return {'text': text, **{name: text[name] for name in names if name in text}}


def put_audio(token_ids_bt, audio_id: int, audio_bnd, mask_bn):
    """What the decoder takes for texts with audio: the i-th ``audio_id`` is the i-th vector.

    Args:
      token_ids_bt: int32 [b, t].
      audio_id: the token.
      audio_bnd: vectors of each row; mask_bn: those that count.

    Returns:
      (int32 [b, t] with -1 for audio, [b, t, d] with its vectors there).
    """
    here_bt = token_ids_bt == audio_id
    counted_bn = jnp.argsort(~mask_bn, axis=1, stable=True)
    number_bt = jnp.clip(jnp.cumsum(here_bt, axis=1) - 1, 0, mask_bn.shape[1] - 1)
    source_bt = jnp.take_along_axis(counted_bn, number_bt, axis=1)
    vectors = jnp.take_along_axis(audio_bnd, source_bt[..., None], axis=1)
    return jnp.where(here_bt, -1, token_ids_bt), vectors


def build_two_head(
    config_model: Mapping[str, Any], dtype: DTypeLike = jnp.float32, remat: str = 'none'
) -> TwoHead:
    """The model that ``config.model`` describes.

    Args:
      config_model: keys audio ({'name': encoder, **its attributes}, or {'name': 'concatenated',
        'encoders': (the same, ...), 'bins': (mel bins of each, ...)}), connector ({'name': one of
        CONNECTORS, **its attributes}) and text ({'name': 'decoder', 'variant', 'lora', ...}, see
        ``build_decoder``); others are ignored.
      dtype: compute dtype.
      remat: of the parts that do not set their own and have blocks, see ``transformer_stack``.

    Raises:
      ConfigError: an unknown part or option, naming the nearest valid one; an encoder that leaves
        patches out at random, whose vectors cannot be counted beforehand.
    """
    parts = {name: dict(config_model[name]) for name in ('audio', 'connector', 'text')}
    config_lib.choose({'decoder': None}, parts['text'].get('name', ''), where='model.text.name')
    text = build_decoder(parts['text'], dtype, remat)
    name = parts['connector'].get('name', '')
    kind = config_lib.choose(CONNECTORS, name, where='model.connector.name')
    fixed = {'features': text.size.width, 'dtype': dtype}
    if name == 'gated_cross_attention':
        fixed['decoder_depth'] = text.size.depth
    connector = _built(kind, parts['connector'], 'model.connector', remat, **fixed)
    return TwoHead(_encoder(parts['audio'], 'model.audio', dtype, remat), connector, text)


def _encoder(options, where, dtype, remat) -> nn.Module:
    if options.get('name') == 'concatenated':
        encoders = tuple(
            _encoder(dict(own), f'{where}.encoders[{number}]', dtype, remat)
            for number, own in enumerate(options.get('encoders', ()))
        )
        if not encoders or len(options.get('bins', ())) != len(encoders):
            raise ConfigError(
                f'config.{where} has {len(encoders)} encoders and bins {options.get("bins", ())}; '
                'give the mel bins of the front end of each encoder.'
            )
        return config_lib.call_with(Concatenated, {**options, 'encoders': encoders}, where=where)
    table = {**AUDIO_ENCODERS, 'concatenated': None}
    kind = config_lib.choose(table, options.get('name', ''), where=f'{where}.name')
    if any(options.get('patchout', ())) or options.get('token_patchout'):
        raise ConfigError(f'config.{where} has patchout, which a language model cannot count with.')
    return _built(kind, options, where, remat, dtype=dtype)


def _built(kind, options, where, remat, **fixed):
    if hasattr(kind, 'remat'):
        options = {'remat': remat, **options}
    return config_lib.call_with(kind, options, where=where, **fixed)
