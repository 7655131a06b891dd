"""What a user does with a model that makes music of texts."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from alm_jax.config import ConfigError
from alm_jax.decoding.musicgen import compose
from alm_jax.interop.language_model import LanguageModel

TEXT_STEP = 16  # texts are padded to a multiple of this, so that few lengths are compiled


class TextToMusic(LanguageModel):
    """A MusicGen checkpoint: ``generate``. Calling it: see ``models.musicgen``."""

    @property
    def sampling_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.config['audio_encoder'].get('sampling_rate', 24_000)

    def generate(
        self,
        texts: str | Sequence[str],
        *,
        max_tokens: int = 256,
        greedy: bool = False,
        seed: int = 0,
        guidance: float | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> np.ndarray:
        """Waveforms that texts describe; the same arguments give the same waveforms.

        Args:
          texts: one or several.
          max_tokens: positions that are generated. Codebooks are delayed, so they make this many
            codes less the number of codebooks, plus one; MusicGen has 50 codes a second.
          greedy: takes the likeliest codes, which makes dull music; else codes are drawn.
          seed: of the draw.
          guidance: weight of the text (classifier-free guidance); None is generation_config.json's.
          temperature: of the draw.
          top_k: codes among which is drawn; None is generation_config.json's, else 50 as in the
            original; 0 is all.

        Returns:
          float32 [b, n], or [b, n, 2] of stereo models, at ``sampling_rate``.

        Raises:
          ConfigError: no text, no tokenizer.json, or too few tokens for the codebooks.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        if not ids or not all(ids):
            raise ConfigError(f'generate takes texts that are not empty; got {texts!r}.')
        longest = -(-max(map(len, ids)) // TEXT_STEP) * TEXT_STEP
        token_ids = np.zeros((len(ids), longest), np.int32)
        mask = np.zeros(token_ids.shape, bool)
        for row, tokens in enumerate(ids):
            token_ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
        codes = self.generate_codes(
            token_ids,
            mask,
            max_tokens=max_tokens,
            greedy=greedy,
            seed=seed,
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
        )
        return self.decode(codes)

    def generate_codes(
        self,
        token_ids_bt: np.ndarray,
        token_mask_bt: np.ndarray,
        *,
        max_tokens: int = 256,
        greedy: bool = False,
        seed: int = 0,
        guidance: float | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> np.ndarray:
        """``generate`` from ids of texts to codes, int32 [b, codebooks, t]."""
        size = self.module.decoder.size
        frames = max_tokens - max(size.delays)
        if frames <= max(size.delays):
            raise ConfigError(
                f'max_tokens is {max_tokens}; {size.codebooks} delayed codebooks need at least '
                f'{2 * max(size.delays) + 1}.'
            )
        if guidance is None:
            guidance = self.generation_config.get('guidance_scale') or 1.0
        if top_k is None:
            top_k = self.generation_config.get('top_k', 50)
        memory = self._encode(self.params, token_ids_bt, token_mask_bt)
        codes = compose(
            self.module.decoder,
            self.params['decoder'],
            memory,
            token_mask_bt,
            jax.random.key(seed),
            frames=frames,
            guidance=float(guidance),
            greedy=greedy,
            temperature=float(temperature),
            top_k=0 if greedy else int(top_k or 0),
        )
        return np.asarray(codes)

    def decode(self, codes_bqt: np.ndarray) -> np.ndarray:
        """Waveforms of codes, float32 [b, n] or [b, n, 2]."""
        waveform = np.asarray(self._waveform(self.params, codes_bqt))
        return waveform[..., 0] if waveform.shape[-1] == 1 else waveform

    @functools.cached_property
    def _encode(self):
        def encode(params, ids, mask):
            return self.module.apply({'params': params}, ids, mask, method='encode')['memory']

        return jax.jit(encode)

    @functools.cached_property
    def _waveform(self):
        def waveform(params, codes):
            return self.module.apply({'params': params}, codes, method='waveform')

        return jax.jit(waveform)
