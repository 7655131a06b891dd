"""A language model that hears: an audio encoder, a connector, and a decoder of text.

The form of Qwen2-Audio (https://arxiv.org/abs/2407.10759), Audio Flamingo 3
(https://arxiv.org/abs/2507.08128) and Voxtral (https://arxiv.org/abs/2507.13264): vectors of audio
stand in the text where tokens would.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from alm_jax.models.layers import kv_cache
from alm_jax.models.text.decoder import Decoder


class AudioLanguageModel(nn.Module):
    """Clips and texts that refer to them in, logits of the next tokens out.

    Parameters: ``audio``, ``connector``, ``text``.

    Attributes:
      audio: encoder (mel_ctf, num_frames_c, train) -> {'tokens' [c, n, e], 'frame_mask' [c, n]};
        its ``num_tokens`` says how many count.
      connector: ([c, n, e], mask) -> ([c, m, d], mask), d being the width of ``text``; its
        ``num_vectors`` likewise.
      text: the decoder.
      audio_id: the token that stands for one vector of audio.
    """

    audio: nn.Module
    connector: nn.Module
    text: Decoder
    audio_id: int

    def __call__(
        self,
        mel_bktf,
        num_frames_bk,
        token_ids_bt,
        token_mask_bt=None,
        *,
        cache: kv_cache.Cache | None = None,
        logits_at_bn=None,
        train: bool = False,
    ) -> dict[str, Any]:
        """Reads texts with up to k windows of audio each.

        Args:
          mel_bktf: [b, k, t', f] log-mel. A long clip is several windows, and a text may have
            several clips; their order is that of the text.
          num_frames_bk: int [b, k], frames of each window; 0 where a row has no such window.
          token_ids_bt: int32 [b, t]. ``audio_id`` stands as often as the row has vectors of audio:
            the first one takes the first vector, and so on. Whether they are as many cannot be seen
            here; see ``num_vectors``.
          token_mask_bt: bool [b, t]; None is all.
          cache, logits_at_bn: see the decoder.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'encoder', the encoder's outputs, of b * k windows; 'audio' [b, k, m, d], the connector's,
          and 'audio_mask' bool [b, k, m]; 'text', the decoder's; 'logits' float32
          [b, t or n, vocabulary]; 'cache' if there was one.
        """
        b, k = num_frames_bk.shape
        mel_ctf = mel_bktf.reshape(b * k, *mel_bktf.shape[2:])
        outputs = self.listen(mel_ctf, num_frames_bk.ravel(), train)
        for name in ('audio', 'audio_mask'):
            outputs[name] = outputs[name].reshape(b, k, *outputs[name].shape[1:])
        ids, embeddings = put_audio(
            token_ids_bt,
            self.audio_id,
            outputs['audio'].reshape(b, -1, outputs['audio'].shape[-1]),
            outputs['audio_mask'].reshape(b, -1),
        )
        text = self.text(
            ids,
            token_mask_bt,
            embeddings_btd=embeddings,
            cache=cache,
            logits_at_bn=logits_at_bn,
            train=train,
        )
        shown = {name: text[name] for name in ('logits', 'cache') if name in text}
        return {**outputs, 'text': text, **shown}

    def num_vectors(self, num_frames):
        """How often ``audio_id`` stands for a window of so many frames: an int or an array."""
        return self.connector.num_vectors(self.audio.num_tokens(num_frames))

    def listen(self, mel_ctf, num_frames_c, train: bool = False) -> dict[str, Any]:
        """The audio's part alone: windows [c, t, f] -> 'encoder', 'audio', 'audio_mask'."""
        encoder = self.audio(mel_ctf, num_frames_c, train)
        audio, mask = self.connector(encoder['tokens'], encoder['frame_mask'])
        return {'encoder': encoder, 'audio': audio, 'audio_mask': mask}


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
