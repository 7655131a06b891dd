"""Texts while they are being written: a few tokens at a time, as whole characters."""

from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers

from alm_jax.config import ConfigError
from alm_jax.decoding.generate import Writer
from alm_jax.decoding.stops import Pieces

CHUNK = 4  # tokens between two looks at the texts


def stream(
    writer: Writer,
    tokenizer: tokenizers.Tokenizer,
    ids_bt,
    mask_bt,
    *,
    max_tokens: int,
    stops: Sequence[str] = (),
    chunk: int = CHUNK,
    **options,
) -> Iterator[list[str]]:
    """The next pieces of all rows, again and again until every row has ended.

    A caller that has enough closes the iterator, or drops it: nothing is computed ahead.

    Args:
      writer, ids_bt, mask_bt, max_tokens, options: see ``Writer.begin``.
      tokenizer: of the model; special tokens are left out of texts.
      stops: strings that end a row where they begin, whatever tokens they are made of.
      chunk: tokens of a call of the device. Rows are looked at in between, so up to so many
        tokens are made in vain behind a stop string.

    Yields:
      One string a row, '' where there is nothing new. Joined over the yields they are the text.

    Raises:
      ConfigError: an empty stop string, or what ``begin`` raises.
    """
    if not all(stops):
        raise ConfigError('An empty stop string would end every text at once.')
    rows = [Pieces(tokenizer, stops) for _ in range(len(ids_bt))]
    texts = writer.begin(ids_bt, mask_bt, max_tokens=max_tokens, **options)
    read = np.zeros(len(rows), int)
    while True:
        fresh = [tokens[n:m] for tokens, n, m in zip(texts.tokens, read, texts.count)]
        read = texts.count
        pieces = [row.add(ids) for row, ids in zip(rows, fresh)]
        ended = np.array([row.ended for row in rows])
        if texts.complete or bool((texts.done | ended).all()):
            yield [piece + row.rest() for piece, row in zip(pieces, rows)]
            return
        if any(pieces):
            yield pieces
        texts.extend(chunk, ended)


def texts(writer: Writer, tokenizer: tokenizers.Tokenizer, ids_bt, mask_bt, **options) -> list[str]:
    """The text of every row; see ``stream``."""
    if not options.get('stops'):
        options = {name: option for name, option in options.items() if name != 'stops'}
        return tokenizer.decode_batch(writer.generate(ids_bt, mask_bt, **options))
    written = list(stream(writer, tokenizer, ids_bt, mask_bt, **options))
    return [''.join(pieces) for pieces in zip(*written)]
