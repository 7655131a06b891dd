"""Texts by a model with an encoder and a decoder of text, such as T5."""

import functools
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from alm_jax.decoding.generate import Writer


def answer(
    writer: Writer, token_ids_bt, token_mask_bt, *, start: int, **options
) -> list[list[int]]:
    """What the decoder writes beside encoded texts.

    Args:
      writer: of method 'decode' of a module that also has ``encode``, such as models.text.t5.T5.
      token_ids_bt: int32 [b, t]; token_mask_bt: bool [b, t].
      start: the decoder's first token, not among the result.
      options: see ``Writer.begin``.

    Returns:
      Tokens of each row, without the stop token.
    """
    memory = _encode(writer.program.module, writer.params, token_ids_bt, token_mask_bt)
    return writer.generate(
        np.full((len(token_ids_bt), 1), start, np.int32),
        np.ones((len(token_ids_bt), 1), bool),
        first={'memory_bsd': memory},
        each={'memory_mask_bs': token_mask_bt},
        **options,
    )


@functools.partial(jax.jit, static_argnames='module')
def _encode(module: nn.Module, params: Any, token_ids_bt, token_mask_bt):
    encoded = module.apply({'params': params}, token_ids_bt, token_mask_bt, method='encode')
    return encoded['tokens']
