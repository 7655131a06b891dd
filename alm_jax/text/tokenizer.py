"""Token ids of a bounded set of shapes, from a tokenizer.json."""

import collections
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from alm_jax.config import ConfigError

_PAD_TOKENS = ('[PAD]', '<pad>', '<|pad|>')
_SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]')
_MAX_VOCABULARY = 8000
_MAX_ALPHABET = 1000  # characters; the rest of a script with more is [UNK]


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
        self._content, self._name = content, name
        self.pad_id = _pad_id(self._cut_at[self.lengths[0]], name)
        self.vocab_size = self._cut_at[self.lengths[0]].get_vocab_size()
        for length, tokenizer in self._cut_at.items():
            tokenizer.no_padding()
            tokenizer.enable_truncation(length)
        self.sha256 = hashlib.sha256(content.encode()).hexdigest()
        self.truncated = 0

    @property
    def pad_token(self) -> str:
        """The text of ``pad_id``."""
        return self._cut_at[self.lengths[0]].id_to_token(self.pad_id)

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

    @classmethod
    def train(cls, captions: Iterable[str], lengths: Sequence[int] = (32,)) -> 'Tokenizer':
        """A lower-cased WordPiece tokenizer of ``captions``, with at most 8000 pieces.

        The same captions, in any order, give the same tokenizer. Ids 0 to 3 are [PAD], [UNK], [CLS]
        and [SEP]; normalisation and splitting into words are BERT's (uncased).
        """
        trained = _word_piece({})
        captions = list(captions)
        letters = collections.Counter(
            letter
            for text in captions
            for letter in trained.normalizer.normalize_str(text)
            if not letter.isspace()
        )
        alphabet = sorted(sorted(letters), key=letters.get, reverse=True)[:_MAX_ALPHABET]
        # The trainer numbers inner letters as it meets them in a hash map, and breaks ties by
        # number; named up front, as if special, they have the same numbers every time.
        trainer = trainers.WordPieceTrainer(
            vocab_size=_MAX_VOCABULARY,
            min_frequency=2,
            special_tokens=[*_SPECIAL, *(f'##{letter}' for letter in sorted(alphabet))],
            initial_alphabet=sorted(alphabet),
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        trained.train_from_iterator(captions, trainer)
        return cls(_word_piece(trained.get_vocab()).to_str(), lengths, name='trained tokenizer')

    def __reduce__(self) -> tuple:
        return Tokenizer, (self._content, self.lengths, self._name)

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


def _word_piece(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    """BERT's uncased tokenizer with this vocabulary."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token='[UNK]'))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    return tokenizer


def _pad_id(tokenizer: tokenizers.Tokenizer, name: str) -> int:
    if tokenizer.padding:
        return int(tokenizer.padding['pad_id'])
    for token in _PAD_TOKENS:
        pad_id = tokenizer.token_to_id(token)
        if pad_id is not None:
            return pad_id
    raise ConfigError(f'{name} names no padding token; add a padding section or a [PAD] token.')
