"""Texts of a CTC head's scores, by the vocab.json of transformers' Wav2Vec2CTCTokenizer."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from alm_jax.config import ConfigError
from alm_jax.interop.tensor_files import read_config

VOCABULARY = 'vocab.json'


@dataclasses.dataclass(frozen=True)
class CtcVocabulary:
    """Tokens by id, most of them letters (Graves et al. 2006: collapse repeats, drop blanks).

    Attributes:
      tokens: id -> token.
      blank: the token that stands for none; the tokenizer's pad token.
      unknown: stands for ids that the vocabulary lacks.
      delimiter: the token between words, or None.
      space: what it becomes.
      lower: whether texts are in lower case.
    """

    tokens: Mapping[int, str]
    blank: str = '<pad>'
    unknown: str = '<unk>'
    delimiter: str | None = '|'
    space: str = ' '
    lower: bool = False

    @classmethod
    def of(cls, folder: pathlib.Path) -> 'CtcVocabulary':
        """Reads vocab.json and, where they are there, the tokenizer's other files.

        Raises:
          ConfigError: no vocab.json; one vocabulary a language, and none chosen.
        """

        def read(name):
            return read_config(folder, name) if (folder / name).is_file() else {}

        config = {**read('special_tokens_map.json'), **read('tokenizer_config.json')}
        ids = read_config(folder, VOCABULARY)
        if any(isinstance(part, dict) for part in ids.values()):
            language = config.get('target_lang')
            if language not in ids:
                raise ConfigError(
                    f'{folder / VOCABULARY} has a vocabulary for each of {", ".join(ids)}; '
                    f'tokenizer_config.json has target_lang {language!r}.'
                )
            ids = ids[language]
        tokens = {index: token for token, index in read('added_tokens.json').items()}
        return cls(
            tokens | {index: token for token, index in ids.items()},
            blank=_content(config.get('pad_token', cls.blank)),
            unknown=_content(config.get('unk_token', cls.unknown)),
            delimiter=_content(config.get('word_delimiter_token', cls.delimiter)),
            space=config.get('replace_word_delimiter_char', cls.space),
            lower=config.get('do_lower_case', cls.lower),
        )

    def text(self, ids: Iterable[int]) -> str:
        """Of the likeliest token at every position."""
        tokens = (self.tokens.get(int(index), self.unknown) for index in ids)
        kept = (token for token, _ in itertools.groupby(tokens) if token != self.blank)
        text = ''.join(self.space if token == self.delimiter else token for token in kept).strip()
        return text.lower() if self.lower else text


def _content(token: Any) -> Any:
    """Of a token that is written with its options."""
    return token['content'] if isinstance(token, dict) else token
