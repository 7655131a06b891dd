"""Attention in the form that suits the backend, chosen when a program is lowered for it.

Which backend that is cannot be asked while a model is traced: a program for TPUs or GPUs may be
compiled on a machine that has none.
"""

import functools

import jax

from alm_jax.models.layers import attention_plain


def attend(
    query, key, value, mask=None, *, bias=None, softcap=None, scale=None, causal=False, window=None
):
    """Scaled dot product attention, softmax in float32.

    Args:
      query: [b, t, heads, d].
      key, value: [b, s, kv_heads, d]; heads is a multiple of kv_heads.
      mask: bool [b, s], or [b, t, s], where True may be attended to; None is everywhere.
      bias: added to the scores, broadcast to [b, heads, t, s]; None is nothing.
      softcap: scores become softcap * tanh(scores / softcap); None leaves them.
      scale: of the scores; None is d ** -0.5.
      causal: query i attends to keys 0 to i.
      window: with ``causal``, to the last so many of these; None is all.

    Returns:
      [b, t, heads, d]. A query that may attend to nothing attends evenly.
    """
    options = {'scale': scale, 'causal': causal, 'window': window}
    plain = functools.partial(attention_plain.attend, bias=bias, softcap=softcap, **options)
    kernels = {}  # platform -> what replaces ``plain`` there
    if not kernels:
        return plain(query, key, value, mask)
    return jax.lax.platform_dependent(query, key, value, mask, default=plain, **kernels)
