"""The tokenizer of a model that writes: texts to token ids and back, and its chat template."""

import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from alm_jax import json_text
from alm_jax.config import ConfigError

_SETTINGS = 'tokenizer_config.json'
# What is read of a folder: special tokens of the first, then of the second, and so on.
_FILES = ('tokenizer.json', _SETTINGS, 'special_tokens_map.json')
_TEMPLATES = ('chat_template.jinja', 'chat_template.json')
_SPECIAL = ('bos_token', 'eos_token', 'pad_token', 'unk_token')
# What ends texts where a folder does not say, as that of GPT-2.
_ENDS = ('<|endoftext|>', '</s>', '<|end_of_text|>', '<eos>', '<|im_end|>')
_MAX_VOCABULARY = 4000
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

Span = tuple[str, bool]  # text, and whether special tokens in it are meant


class LanguageTokenizer:
    """Of a folder with tokenizer.json.

    Attributes:
      name: for messages.
      special_tokens: 'bos_token', 'eos_token' and so on, as text; those that the folder names.
      chat_template: jinja2; '' where the folder has none.
      begin: the text of the token that every text begins with, '' for none.
      control: text -> id of all special tokens.
      vocab_size: with added tokens.
      sha256: hex digest of all files.
    """

    def __init__(self, files: Mapping[str, bytes], name: str = 'tokenizer'):
        """Use ``load``.

        Args:
          files: name -> content; 'tokenizer.json' at least.
          name: for messages.
        """
        self.name = name
        self._files = dict(files)
        try:
            self._full = tokenizers.Tokenizer.from_buffer(self._files['tokenizer.json'])
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f'{name}/tokenizer.json is no tokenizer: {error}.') from error
        self._full.no_padding()
        self._full.no_truncation()
        added = self._full.get_added_tokens_decoder()
        # An added token may be several spaces; it commands nothing.
        self.control = {
            token.content: i for i, token in added.items() if token.special or token.content.strip()
        }
        self._control_ids = frozenset(self.control.values())
        settings = self._settings()
        self.special_tokens = {key: text for key in _SPECIAL if (text := _text(settings.get(key)))}
        self.chat_template = self._template(settings)
        first = self._full.encode('a')
        self.begin = first.tokens[0] if first.special_tokens_mask[0] else ''
        self.vocab_size = self._full.get_vocab_size()
        digest = hashlib.sha256()
        for file, content in sorted(self._files.items()):
            digest.update(f'{file} {len(content)}\n'.encode() + content)
        self.sha256 = digest.hexdigest()

    @classmethod
    def load(cls, folder: str | os.PathLike) -> 'LanguageTokenizer':
        """Reads a folder, or that of a tokenizer.json.

        Raises:
          ConfigError: no tokenizer.json there, or a file that cannot be read.
        """
        folder = pathlib.Path(folder)
        folder = folder.parent if folder.name == 'tokenizer.json' else folder
        names = [name for name in (*_FILES, *_TEMPLATES) if (folder / name).is_file()]
        if 'tokenizer.json' not in names:
            raise ConfigError(f'There is no tokenizer.json in {folder}.')
        try:
            return cls({name: (folder / name).read_bytes() for name in names}, str(folder))
        except OSError as error:
            raise ConfigError(f'{folder} cannot be read: {error}.') from error

    @classmethod
    def train(cls, texts: Iterable[str]) -> 'LanguageTokenizer':
        """A byte-level BPE of ``texts`` with at most 4000 tokens and a ChatML template.

        For models from scratch. The same texts, in any order, give the same tokenizer.
        """
        trained = tokenizers.Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trained.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=_MAX_VOCABULARY,
            min_frequency=2,
            special_tokens=['<|endoftext|>', '<|im_start|>', '<|im_end|>'],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        trained.train_from_iterator(texts, trainer)
        settings = {'eos_token': '<|endoftext|>', 'chat_template': _CHATML}
        files = {'tokenizer.json': trained.to_str(), _SETTINGS: json.dumps(settings)}
        encoded = {name: content.encode() for name, content in files.items()}
        return cls(encoded, 'trained tokenizer')

    def save(self, folder: str | os.PathLike) -> None:
        """Writes all files into ``folder``, byte for byte what was loaded."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (folder / name).write_bytes(content)

    def __reduce__(self):
        return LanguageTokenizer, (self._files, self.name)

    @property
    def end(self) -> str:
        """The text of the token that ends a text. Raises ConfigError when there is none."""
        for token in (self.special_tokens.get('eos_token'), *_ENDS):
            if token and self._full.token_to_id(token) is not None:
                return token
        raise ConfigError(f'{self.name}/{_SETTINGS} names no eos_token.')

    @property
    def full(self) -> tokenizers.Tokenizer:
        """As the folder has it."""
        return self._full

    def encode(self, spans: Sequence[Span]) -> list[int]:
        """Token ids of a text, nothing added in front or behind.

        The text is tokenised as one, as any text is, but where that makes a special token of what
        is not meant to be one: then spans are tokenised each by itself.

        Args:
          spans: of the text, in order. Special tokens in those with False are letters.
        """
        encoding = self._full.encode(''.join(text for text, _ in spans), add_special_tokens=False)
        own, end = [], 0
        for text, is_markup in spans:
            end += len(text)
            own += [] if is_markup else [(end - len(text), end)]
        forged = any(
            first < stop and start < last
            for number, (first, last) in zip(encoding.ids, encoding.offsets)
            if number in self._control_ids
            for start, stop in own
        )
        if not forged:
            return encoding.ids
        ids = []
        for text, is_markup in spans:
            spelled = self._full.encode(text, add_special_tokens=False).ids if is_markup else None
            ids += self._spelled(text) if spelled is None else spelled
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of token ids."""
        return self._full.decode(list(ids), skip_special_tokens=skip_special)

    @functools.cached_property
    def ending(self) -> re.Pattern:
        """Matches white space, if any, and one special token."""
        longest_first = sorted(self.control, key=len, reverse=True)
        return re.compile(rf'\s*(?:{"|".join(map(re.escape, longest_first)) or "(?!)"})')

    def _spelled(self, text: str) -> list[int]:
        ids = self._plain.encode(text, add_special_tokens=False).ids
        if not self._control_ids.isdisjoint(ids):  # the vocabulary has them as words
            ids = [i for letter in text for i in self._plain.encode(letter).ids]
        if not self._control_ids.isdisjoint(ids):
            raise ConfigError(f'{self.name} cannot spell {text[:80]!r} without special tokens.')
        return ids

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same without special tokens."""
        content = json.loads(self._files['tokenizer.json'])
        cut = {'added_tokens': [], 'post_processor': None, 'truncation': None, 'padding': None}
        return tokenizers.Tokenizer.from_str(json.dumps({**content, **cut}))

    def _settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in reversed(_FILES[1:]):
            found |= self._json(name)
        return found

    def _template(self, settings: Mapping[str, Any]) -> str:
        if 'chat_template.jinja' in self._files:
            return self._files['chat_template.jinja'].decode(errors='replace')
        template = settings.get(
            'chat_template', self._json('chat_template.json').get('chat_template')
        )
        if isinstance(template, list):  # of {'name', 'template'}
            named = {t.get('name'): t.get('template') for t in template if isinstance(t, dict)}
            template = named.get('default')
        return template if isinstance(template, str) else ''

    def _json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file, nothing where there is none."""
        return json_text.parse_object(self._files.get(name, b'{}'), f'{self.name}/{name}')


def _text(token: Any) -> str:
    """Of a token that stands as text, or as {'content': text}."""
    token = token.get('content') if isinstance(token, Mapping) else token
    return token if isinstance(token, str) else ''
