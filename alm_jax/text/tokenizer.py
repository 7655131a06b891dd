"""Token ids of a bounded set of shapes, from a tokenizer.json."""

import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tokenizers

from alm_jax.config import ConfigError

_PAD_TOKENS = ('[PAD]', '<pad>', '<|pad|>')


class Tokenizer:
    """Texts to padded token ids, whose length is one of a few, so that few shapes are compiled.

    Attributes:
      lengths: the lengths, ascending.
      pad_id: of the file's padding section, else of its [PAD] or <pad> token.
      vocab_size: with added tokens.
      sha256: hex digest of the tokenizer.json.
      truncated: how many texts have been cut so far.
    """

    def __init__(self, content: str, lengths: Sequence[int] = (32,), name: str = 'tokenizer.json'):
        """Use ``load``. ``content`` is the text of a tokenizer.json; ``name`` is for messages."""
        self.lengths = tuple(sorted(int(length) for length in lengths))
        if not self.lengths or self.lengths[0] < 3:
            raise ConfigError(f'Token lengths are {tuple(lengths)}; give one or more, each >= 3.')
        try:
            # One a length: truncation is a setting of the object, and threads may share this one.
            self._cut_at = {n: tokenizers.Tokenizer.from_str(content) for n in self.lengths}
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f'{name} is not a tokenizer.json: {error}.') from error
        self._content = content
        self.pad_id = _pad_id(self._cut_at[self.lengths[0]], name)
        self.vocab_size = self._cut_at[self.lengths[0]].get_vocab_size()
        for length, tokenizer in self._cut_at.items():
            tokenizer.no_padding()
            tokenizer.enable_truncation(length)
        self.sha256 = hashlib.sha256(content.encode()).hexdigest()
        self.truncated = 0

    @classmethod
    def load(cls, path: str | os.PathLike, lengths: Sequence[int] = (32,)) -> 'Tokenizer':
        """Reads a tokenizer.json, or the one in a folder.

        Raises:
          ConfigError: no such file, not a tokenizer, or no padding token.
        """
        path = pathlib.Path(path)
        file = path / 'tokenizer.json' if path.is_dir() else path
        try:
            content = file.read_bytes().decode('utf-8')
        except FileNotFoundError as error:
            raise ConfigError(f'There is no tokenizer at {file}.') from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f'{file} cannot be read as a tokenizer.json: {error}.') from error
        return cls(content, lengths, name=str(file))

    def save(self, folder: str | os.PathLike) -> None:
        """Writes ``folder``/tokenizer.json, byte for byte what was loaded."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'tokenizer.json').write_bytes(self._content.encode())

    def __call__(
        self, texts: Sequence[str], lengths: Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Encodes a batch at the smallest length that holds its longest text, or the largest.

        Args:
          texts: b texts.
          lengths: a subset of ``self.lengths`` to choose from; all of them by default.

        Returns:
          'token_ids' int32 [b, t] with special tokens, padded with ``pad_id`` at the end;
          'token_mask' bool [b, t], true where a token is. A text longer than the largest length
          loses its end (special tokens are kept) and is counted in ``truncated``.
        """
        lengths = self.lengths if lengths is None else tuple(sorted(lengths))
        if not lengths or not set(lengths) <= set(self.lengths):
            raise ConfigError(f'Token lengths {lengths} are not among {self.lengths}.')
        encodings = self._cut_at[lengths[-1]].encode_batch(list(texts))
        longest = max((len(encoding) for encoding in encodings), default=0)
        length = next(length for length in lengths if length >= longest)
        self.truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        token_ids = np.full((len(encodings), length), self.pad_id, np.int32)
        token_mask = np.zeros((len(encodings), length), bool)
        for row, encoding in enumerate(encodings):
            token_ids[row, : len(encoding)] = encoding.ids
            token_mask[row, : len(encoding)] = True
        return {'token_ids': token_ids, 'token_mask': token_mask}


def _pad_id(tokenizer: tokenizers.Tokenizer, name: str) -> int:
    if tokenizer.padding:
        return int(tokenizer.padding['pad_id'])
    for token in _PAD_TOKENS:
        pad_id = tokenizer.token_to_id(token)
        if pad_id is not None:
            return pad_id
    raise ConfigError(f'{name} names no padding token; add a padding section or a [PAD] token.')
