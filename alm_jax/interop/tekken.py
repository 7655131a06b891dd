"""Tokenizers from Mistral's tekken.json, which is all that Voxtral's folders hold.

The file lists byte strings by rank; a word is merged as tiktoken does it, the pair whose union has
the lowest rank first. Special tokens have the first ids.
"""

import base64
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from alm_jax import json_text
from alm_jax.config import ConfigError
from alm_jax.interop import gguf_tokenizer

MOST_SPECIAL = 1 << 16


def build(file: pathlib.Path) -> tokenizers.Tokenizer:
    """The tokenizer of a tekken.json. It puts <s> in front, and reads [INST] and the like as such.

    Raises:
      ConfigError: the file cannot be read, or lacks a key.
    """
    try:
        content = json_text.parse_object(file.read_bytes(), str(file))
        config = content['config']
        reserved = int(config['default_num_special_tokens'])
        if not 0 <= reserved <= MOST_SPECIAL:
            raise ValueError(f'it has {reserved} special tokens; up to {MOST_SPECIAL} are read')
        count = int(config['default_vocab_size']) - reserved
        special = {entry['token_str']: int(entry['rank']) for entry in content['special_tokens']}
        words = [base64.b64decode(entry['token_bytes']) for entry in content['vocab'][:count]]
        pattern = _regex(config['pattern'])
    except ConfigError:
        raise
    except KeyError as error:
        raise ConfigError(f'{file} has no {error.args[0]}.') from error
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f'{file} cannot be read as a tekken.json: {error}.') from error
    gguf_tokenizer.check_lengths(words, str(file))
    return _build(words, _filled(special, reserved), pattern)


def _regex(pattern: str) -> Any:
    try:
        return tokenizers.Regex(pattern)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f'its pattern is none ({error})') from error


def _filled(special: Mapping[str, int], count: int) -> dict[str, int]:
    """With names for the ids that have none."""
    named = set(special.values())
    return {**special, **{f'<SPECIAL_{i}>': i for i in range(count) if i not in named}}


def _build(words: Sequence[bytes], special: Mapping[str, int], pattern: Any):
    letters = _letters()
    ranks = {''.join(map(letters.__getitem__, word)): i for i, word in enumerate(words)}
    merges = []
    for word in ranks:
        splits = ((word[:i], word[i:]) for i in range(1, len(word)))
        merges += [pair for pair in splits if pair[0] in ranks and pair[1] in ranks]
    ids = {word: rank + len(special) for word, rank in ranks.items()} | special
    # A word that is in the list is one token, however its merges would go.
    tokenizer = tokenizers.Tokenizer(models.BPE(ids, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    ordered = sorted(special, key=special.get)
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, normalized=False) for t in ordered])
    if '<s>' in special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single='<s> $A', special_tokens=[('<s>', special['<s>'])]
        )
    return tokenizer


def _letters() -> dict[int, str]:
    """Byte -> the letter that stands for it (GPT-2's, which ``tokenizers`` uses): printable ones
    stand for themselves, the others are the letters from 256 on, in order.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }
