"""Several audio encoders side by side (SALMONN, Tang et al. 2023, arXiv:2310.13289, 3.1)."""

import jax.numpy as jnp
from flax import linen as nn

from alm_jax.models.layers.norm import LayerNorm


class Concatenated(nn.Module):
    """The encoders' vectors, one of each end to end, after a norm each.

    They are matched by their number, so all should have as many a second. In SALMONN, Whisper has
    one every 20 ms; BEATs has eight for 160 ms, its bands, which stand one after the other as if
    they were steps of time. Where an encoder has none (BEATs behind a clip's end, while Whisper
    hears 30 s) stand zeros; what goes on behind the first encoder's last is left out.

    Parameters: ``encoders_0``, ``encoders_1``, ..., ``norm_0``, ``norm_1``, ...

    Attributes:
      encoders: of clips, see ``models.two_tower``.
      bins: of the log-mel of each.
      positions: vectors of a window, all of which count whatever they hold (SALMONN: 1500); None
        counts those that the first encoder counts.
    """

    encoders: tuple[nn.Module, ...]
    bins: tuple[int, ...]
    positions: int | None = None

    masked = False  # what an encoder hears may depend on the silence behind a clip

    @nn.compact
    def __call__(self, features_btf, num_frames_b, train: bool = False):
        """Encodes clips.

        Args:
          features_btf: [b, t, f], the log-mels of the encoders' front ends in their order, at the
            same frames a second.
          num_frames_b: int [b], frames that a clip has.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'tokens' [b, t', d + e + ...], t' being the first encoder's; 'frame_mask' bool [b, t'];
          'encoders', a tuple of the encoders' own outputs.
        """
        parts, outputs, start = [], [], 0
        for number, (encoder, bins) in enumerate(zip(self.encoders, self.bins, strict=True)):
            output = encoder(features_btf[..., start : start + bins], num_frames_b, train)
            x, mask = vectors(output)
            x = LayerNorm(1e-5, name=f'norm_{number}')(x)
            if getattr(encoder, 'masked', True):
                x = jnp.where(mask[..., None], x, 0)
            length = parts[0].shape[1] if parts else x.shape[1]
            x = x[:, :length]
            parts.append(jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0))))
            outputs.append(output)
            start += bins
        counted = jnp.arange(length) < self.num_tokens(num_frames_b)[:, None]
        tokens = jnp.concatenate([part.astype(parts[0].dtype) for part in parts], axis=-1)
        return {'tokens': tokens, 'frame_mask': counted, 'encoders': tuple(outputs)}

    def num_tokens(self, num_frames):
        """How many vectors of a clip of so many frames count: an int or an array."""
        if self.positions is not None:
            return num_frames * 0 + self.positions
        return self.encoders[0].num_tokens(num_frames)


def vectors(output):
    """([b, n, d], bool [b, n]) of an encoder's outputs: the finest in time that it has."""
    if 'token_mask' in output:
        return output['tokens'], output['token_mask']
    return output.get('frames', output.get('tokens')), output['frame_mask']
