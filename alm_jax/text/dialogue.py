"""Conversations about clips, as the text that a model reads: whose words, and which to predict.

A dialogue is written by the chat template of the tokenizer's folder ('chat') or in a format of
``dialogue_formats``.

Where clips stand: a text may say so by '<audio>' (also '<sound>' and '<speech>'), the first of them
being the first clip, or by '<audio-2>' for the second clip; clips that no text places stand in
front of the first instruction.

A format is written around placeholders, never around what is said, so that no text can act on a
template; and special tokens count in what the format writes alone (``Piece.is_markup``).
"""

import dataclasses
import datetime
import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.text import chat_template
from alm_jax.text.dialogue_formats import FORMATS, Format, Marked, Style
from alm_jax.text.language_tokenizer import LanguageTokenizer

SLOT = re.compile(r'<(?:audio|sound|speech)(?:-(\d+))?>')
_MARK = '\ue000{}\ue001'  # of a private area of Unicode; stands for piece number {}
_MARKED = re.compile('\ue000(\\d+)\ue001')
# Templates of models that hear ask which parts of a message are audio, and write this for a clip.
_HEARS = re.compile(r'[\'"]audio')
_AUDIO_TOKEN = re.compile(r'<\|AUDIO\|>|<\|audio\|>|<sound>|<audio>|\[AUDIO\]')
# What templates take for today: batches may not depend on the day they are made.
_TODAY = datetime.datetime(2024, 7, 26)

Turn = tuple[str, str | None]  # instruction, response


class DialogueError(ConfigError):
    """Turns that cannot be written; the message says why."""


class Piece(NamedTuple):
    """A part of a written dialogue: a text, or a clip.

    Attributes:
      text: '' of a clip.
      clip: its number, from 0; None of a text.
      is_answer: whether it belongs to what the model is to say. The text of such a piece is
        predicted, the token that ends an answer included.
      is_markup: whether the format wrote it; special tokens in any other text are but letters.
    """

    text: str = ''
    clip: int | None = None
    is_answer: bool = False
    is_markup: bool = False


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """Writes dialogues in one format.

    Attributes:
      format: 'chat' or one of FORMATS.
      tokenizer: its special tokens end answers; 'chat' is its template.
    """

    format: str
    tokenizer: LanguageTokenizer

    def __post_init__(self):
        config_lib.choose({'chat': None, **FORMATS}, self.format, where='data.text.dialogue')
        if self.format == 'chat' and not self.tokenizer.chat_template:
            raise ConfigError(
                f'{self.tokenizer.name} has no chat template. Choose another '
                f'config.data.text.dialogue: {", ".join(FORMATS)}.'
            )
        self.pieces([('', 'answer')], 1)  # a mistake is told before the first step

    @functools.cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        last = [piece for piece in self.pieces([('', 'answer')], 1) if piece.is_answer][-1]
        ends = {self.tokenizer.encode([(last.text, True)])[-1]}
        ends.add(self.tokenizer.encode([(self.tokenizer.end, True)])[-1])
        return tuple(sorted(ends))

    def pieces(
        self, turns: Sequence[Turn], clips: int = 1, *, task: str = '', language: str = ''
    ) -> list[Piece]:
        """A dialogue in pieces, in order.

        Args:
          turns: (instruction, response) in order. The last response may be None, which leaves the
            dialogue where the model is to answer.
          clips: how many are heard.
          task: one of ``alm_jax.data.instructions.TASKS``, for formats that name it.
          language: of the speech (BCP-47), likewise; '' is none, or not known.

        Raises:
          DialogueError: more places than clips, two places for a clip, a response that is missing.
          ConfigError: a chat template that cannot be used.
        """
        if not turns or any(response is None for _, response in turns[:-1]):
            raise DialogueError('every turn but the last needs a response.')
        own, rounds = placed(turns, clips)
        if self.format == 'chat':
            marked, prompt = self._chat(own, rounds), self._generation_prompt
        else:
            form = FORMATS[self.format]
            style = Style(self.tokenizer.begin, self.tokenizer.end, task, language)
            marked, prompt = form.write([_marked(form, own, r) for r in rounds], style), ''
        stop = rounds[-1].answer[0] if turns[-1][1] is None else len(own)
        return self._split(marked, own, prompt, stop)

    def _split(self, marked: str, own: Sequence[Piece], prompt: str, stop: int) -> list[Piece]:
        """A text with marks as pieces; what the format writes around an answer is told apart.

        An answer begins behind ``prompt`` where that precedes it, else with the spaces before it,
        and ends with the first special token behind it. Where the answer would begin that piece
        ``stop`` belongs to, all ends.
        """
        texts = _MARKED.split(marked)
        numbers = [*map(int, texts[1::2]), None]
        is_answer = [*(own[n].is_answer for n in numbers[:-1]), False]
        pieces = []
        for text, number, before, after in zip(
            texts[::2], numbers, [False, *is_answer], is_answer, strict=False
        ):
            head, tail = text, ''  # of a prompt and of the answer that follows
            if before:
                ending = self.tokenizer.ending.match(text)
                if not ending and not after:
                    raise ConfigError(
                        f'{self.tokenizer.name}: what the format {self.format!r} writes behind an '
                        'answer begins with none of its special tokens, so that none would end. '
                        'Choose another config.data.text.dialogue.'
                    )
                end = len(text) if after else ending.end()
                pieces.append(Piece(text[:end], is_answer=True, is_markup=True))
                head = text[end:]
            if after and not before:
                start = len(prompt) if prompt and head.startswith(prompt) else len(head.rstrip(' '))
                head, tail = head[:start], head[start:]
            pieces.append(Piece(head, is_markup=True))
            if number in (None, stop):
                break
            pieces += [Piece(tail, is_answer=True, is_markup=True), own[number]]
        return [piece for piece in pieces if piece.text or piece.clip is not None]

    def _chat(
        self, own: Sequence[Piece], rounds: Sequence['_Round'], add_generation_prompt: bool = False
    ) -> str:
        """What the chat template writes, with marks."""
        messages = []
        for turn in rounds:
            messages.append(('user', [*turn.front, *turn.user]))
            messages.append(('assistant', turn.answer))
        if add_generation_prompt:
            messages.pop()
        numbers = [number for _, content in messages for number in content]
        hears = bool(_HEARS.search(self.tokenizer.chat_template))
        written = chat_template.render(
            self.tokenizer.chat_template,
            [{'role': role, 'content': _content(own, said, hears)} for role, said in messages],
            special_tokens=self.tokenizer.special_tokens,
            add_generation_prompt=add_generation_prompt,
            now=_TODAY,
            name=f'the chat template of {self.tokenizer.name}',
        )
        if hears:
            clips = iter([number for number in numbers if own[number].clip is not None])
            written = _AUDIO_TOKEN.sub(lambda _: _MARK.format(next(clips, len(own))), written)
        if [*map(int, _MARKED.findall(written))] != numbers:
            raise ConfigError(
                f'{self.tokenizer.name}: the chat template does not write all that it is given, '
                'once and in order. Choose another config.data.text.dialogue.'
            )
        return written

    @functools.cached_property
    def _generation_prompt(self) -> str:
        """What the chat template writes between an instruction and an answer."""
        if 'add_generation_prompt' not in self.tokenizer.chat_template:
            return ''
        own, rounds = placed([('', None)], 0)
        return _MARKED.split(self._chat(own, rounds, add_generation_prompt=True))[-1]


class _Round(NamedTuple):
    """A turn as numbers of pieces: clips in front, the instruction, the response."""

    front: list[int]
    user: list[int]
    answer: list[int]


def placed(turns: Sequence[Turn], clips: int) -> tuple[list[Piece], list[_Round]]:
    """(what is said and heard, in order; where that is in each turn)."""
    # Text, number of a clip or None, text, ... text.
    texts: list[list[Any]] = [SLOT.split(text or '') for turn in turns for text in turn]
    placed, counted = set(), 0
    for parts in texts:
        for i in range(1, len(parts), 2):
            counted += not parts[i]
            number = int(parts[i] or counted)
            if not 1 <= number <= clips:
                raise DialogueError(f'there is a place for clip {number}, but {clips} are heard.')
            if number in placed:
                raise DialogueError(f'clip {number} has more than one place.')
            placed.add(number)
            parts[i] = number - 1
    own = [Piece(clip=clip) for clip in range(clips) if clip + 1 not in placed]
    rounds = []
    for user, answer in zip(texts[::2], texts[1::2]):
        starts = [len(own)]
        for parts, is_answer in ((user, False), (answer, True)):
            for i, part in enumerate(parts):
                kind = {'clip': part} if i % 2 else {'text': part}
                own.append(Piece(**kind, is_answer=is_answer))
            starts.append(len(own))
        first, middle, last = starts
        front = list(range(first if not rounds else 0))
        rounds.append(_Round(front, [*range(first, middle)], [*range(middle, last)]))
    return own, rounds


def _content(own: Sequence[Piece], numbers: Sequence[int], hears: bool) -> Any:
    """The content of a message: a text, or parts where a template that hears is to place a clip."""
    if not hears or all(own[n].clip is None for n in numbers):
        return ''.join(map(_MARK.format, numbers))
    text = [{'type': 'text', 'text': _MARK.format(n)} for n in numbers]
    audio = {'type': 'audio', 'audio': 'audio', 'audio_url': 'audio'}
    return [part if own[n].clip is None else audio for n, part in zip(numbers, text)]


def _marked(form: Format, own: Sequence[Piece], turn: _Round) -> Marked:
    """A turn with a mark for each piece."""

    def mark(number: int, gap: str = '') -> str:
        here = _MARK.format(number)
        return here if own[number].clip is None else f'{form.before}{here}{form.after}{gap}'

    return Marked(
        ''.join(mark(n, form.gap) for n in turn.front),
        ''.join(map(mark, turn.user)),
        ''.join(map(mark, turn.answer)),
        is_said=any(own[n].text for n in turn.user),
        has_clips=any(own[n].clip is not None for n in turn.user),
    )
