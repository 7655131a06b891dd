"""tokenizer.json from the vocabulary and merges in a GGUF file's metadata."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from alm_jax.config import ConfigError, did_you_mean

LONGEST_TOKEN = 1024  # letters; runs of spaces have a hundred
NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6  # of tokenizer.ggml.token_type
# What splits a text into words before merges: Qwen2's, and Llama 3's with digits in threes.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
    r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)


def build(metadata: Mapping[str, Any], name: str) -> tokenizers.Tokenizer:
    """The tokenizer of a model: byte-level BPE ('gpt2') or SentencePiece BPE ('llama').

    Args:
      metadata: of the file.
      name: of the file, for messages.

    Raises:
      ConfigError: a missing or malformed key, or a kind of tokenizer that is not read; names both.
    """
    kinds = {'gpt2': _byte_level, 'llama': _sentence_piece}
    kind = _get(metadata, 'model', str, name)
    if kind not in kinds:
        raise ConfigError(
            f'{name}: tokenizer.ggml.model {kind!r} is not read. {did_you_mean(kind, list(kinds))}'
        )
    tokens = _list(metadata, 'tokens', str, name)
    check_lengths(tokens, f'{name}: tokenizer.ggml.tokens')
    types = [NORMAL] * len(tokens)
    if 'tokenizer.ggml.token_type' in metadata:
        types = _list(metadata, 'token_type', int, name, len(tokens))
    for key, token in special_ids(metadata).items():
        if not 0 <= token < len(tokens):
            raise ConfigError(f'{name}: tokenizer.ggml.{key}_token_id is {token}, beyond the last.')
    tokenizer = kinds[kind](metadata, tokens, types, name)
    added = [
        tokenizers.AddedToken(token, normalized=False, special=code != USER)
        for token, code in zip(tokens, types)
        if code in (UNKNOWN, CONTROL, USER)
    ]
    tokenizer.add_tokens(added)
    _add_ends(tokenizer, metadata, tokens, kind)
    return tokenizer


def check_lengths(tokens: Sequence[str | bytes], name: str) -> None:
    """Raises ConfigError for a token so long that looking at all its splits would never end."""
    if (longest := max(map(len, tokens), default=0)) > LONGEST_TOKEN:
        raise ConfigError(f'{name}: a token has {longest} letters; {LONGEST_TOKEN} are read.')


def special_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    """'bos', 'eos', 'eot', 'unknown', 'padding' -> token id, where the file names one."""
    names = ('bos', 'eos', 'eot', 'unknown', 'padding')
    found = {name: metadata.get(f'tokenizer.ggml.{name}_token_id') for name in names}
    return {name: token for name, token in found.items() if isinstance(token, int)}


def _get(metadata: Mapping[str, Any], key: str, kind: type, name: str) -> Any:
    value = metadata.get(f'tokenizer.ggml.{key}')
    if not isinstance(value, kind):
        raise ConfigError(f'{name}: tokenizer.ggml.{key} is missing or no {kind.__name__}.')
    return value


def _list(metadata, key: str, kind: type, name: str, length: int | None = None) -> list:
    values = _get(metadata, key, list, name)
    if not values or not all(isinstance(value, kind) for value in values):
        raise ConfigError(f'{name}: tokenizer.ggml.{key} is not a list of {kind.__name__}.')
    if length not in (None, len(values)):
        raise ConfigError(f'{name}: tokenizer.ggml.{key} has {len(values)} for {length} tokens.')
    return values


def _byte_level(metadata, tokens, types, name) -> tokenizers.Tokenizer:
    del types
    merges = [tuple(merge.split(' ')) for merge in _list(metadata, 'merges', str, name)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    for pair in merges:
        if len(pair) != 2 or not vocabulary.keys() >= {*pair, ''.join(pair)}:
            raise ConfigError(f'{name}: tokenizer.ggml.merges: {" ".join(pair)!r} fits no tokens.')
    pre = _pre(metadata)
    if pre not in _SPLITS:
        hint = did_you_mean(pre, list(_SPLITS))
        raise ConfigError(f'{name}: tokenizer.ggml.pre {pre!r} is not read. {hint}')
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, ignore_merges='llama' in pre, fuse_unk=False)
    )
    if pre == 'qwen2':
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_SPLITS[pre]())
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pre(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get('tokenizer.ggml.pre', 'default'))


def _gpt2_words() -> list[pre_tokenizers.PreTokenizer]:
    return [pre_tokenizers.ByteLevel(add_prefix_space=False)]


def _digits_and_words() -> list[pre_tokenizers.PreTokenizer]:
    return [pre_tokenizers.Digits(individual_digits=True), *_gpt2_words()]


def _words(digits: int) -> list[pre_tokenizers.PreTokenizer]:
    pattern = tokenizers.Regex(_WORDS % digits)
    return [
        pre_tokenizers.Split(pattern, 'isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


_SPLITS = {  # tokenizer.ggml.pre -> what splits a text into words
    **dict.fromkeys(('default', 'gpt-2'), _gpt2_words),
    **dict.fromkeys(('smollm', 'starcoder', 'refact', 'command-r'), _digits_and_words),
    **dict.fromkeys(('qwen2', 'deepseek-r1-qwen', 'stablelm2'), functools.partial(_words, 1)),
    **dict.fromkeys(('llama-bpe', 'llama3', 'llama-v3'), functools.partial(_words, 3)),
}


def _sentence_piece(metadata, tokens, types, name) -> tokenizers.Tokenizer:
    """Merges are not stored: every split of a token into two, the likeliest token first.

    Gemma's scores are not in the order of its merges, its tokens are; and its tokens of several
    spaces are written with spaces.
    """
    scores = _list(metadata, 'scores', float, name, len(tokens))
    if str(metadata.get('general.architecture')).startswith('gemma'):
        scores = [-float(index) for index in range(len(tokens))]
        tokens = [t if t.strip(' ') else '▁' * len(t) for t in tokens]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = []
    for token, index in vocabulary.items():
        if types[index] not in (NORMAL, USER):
            continue
        splits = ((token[:i], token[i:]) for i in range(1, len(token)))
        known = [pair for pair in splits if vocabulary.keys() >= set(pair)]
        known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        merges += [(-scores[index], pair) for pair in known]
    merges.sort(key=lambda merge: merge[0])
    unknown = tokens[special_ids(metadata).get('unknown', 0)]
    model = models.BPE(
        vocabulary,
        [pair for _, pair in merges],
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=BYTE in types,
    )
    tokenizer = tokenizers.Tokenizer(model)
    prefix = metadata.get('tokenizer.ggml.add_space_prefix', True)
    steps = [normalizers.Prepend('▁')] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(' ', '▁')])
    strip = [decoders.Strip(' ', 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _add_ends(tokenizer, metadata, tokens, kind) -> None:
    """The tokens that every text begins and ends with, if any."""
    ids = special_ids(metadata)
    llama = kind == 'llama' or 'llama' in _pre(metadata)
    ends = []
    for name, default in (('bos', llama), ('eos', False)):
        wanted = metadata.get(f'tokenizer.ggml.add_{name}_token', default) and name in ids
        ends.append([tokens[ids[name]]] if wanted else [])
    if not any(ends):
        return
    one = [*ends[0], '$A', *ends[1]]
    # The second text of a pair has type 1.
    two = [*one, *(f'{piece}:1' for piece in [*ends[0], '$B', *ends[1]])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=one,
        pair=two,
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in {*ends[0], *ends[1]}],
    )
