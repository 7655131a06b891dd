"""Formats of dialogues other than a tokenizer's own chat template: those of published models.

plain            audio, the instruction if any, the answer: Pengi (arXiv:2305.11834), captioning
ltu              Alpaca's blocks behind the audio: LTU (arXiv:2305.10790)
salmonn          USER: <Speech>audio</Speech> ... ASSISTANT: of SALMONN (arXiv:2310.13289)
qwen_audio       hierarchical tags of task and language: Qwen-Audio (arXiv:2311.07919), 3.2
audio_flamingo3  ChatML of Qwen2.5 with audio before the question (arXiv:2507.08128)
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Marked(NamedTuple):
    """A turn as text with marks."""

    front: str
    user: str
    answer: str
    is_said: bool  # whether the instruction has words
    has_clips: bool  # whether clips stand in it


class Style(NamedTuple):
    """What formats are filled with."""

    begin: str
    end: str
    task: str
    language: str


class Format(NamedTuple):
    """A format other than a chat template.

    Attributes:
      write: turns to text.
      before, after: what stands around each clip; gap: behind it, when it stands in front.
    """

    write: Callable[[Sequence[Marked], Style], str]
    before: str = ''
    after: str = ''
    gap: str = ''


def _plain(turns: Sequence[Marked], style: Style) -> str:
    said = [f'{t.front}{t.user}{" " * t.is_said}{t.answer}{style.end}' for t in turns]
    return style.begin + ''.join(said)


def _ltu(turns: Sequence[Marked], style: Style) -> str:
    blocks = [f'### Instruction:\n{t.user}\n\n### Response:\n{t.answer}{style.end}' for t in turns]
    return turns[0].front + style.begin + '\n\n'.join(blocks)  # it puts audio before all else


def _salmonn(turns: Sequence[Marked], style: Style) -> str:
    said = [f'USER: {t.front}{t.user}\nASSISTANT: {t.answer}{style.end}' for t in turns]
    return style.begin + ''.join(said)


# Task -> (what starts, the task, how it is to be written).
_TAGS = {
    'transcription': ('startoftranscript', 'transcribe', 'wo_itn'),
    'captioning': ('startofanalysis', 'caption', 'caption_plain'),
    'tagging': ('startofanalysis', 'keyword', ''),
    'classification': ('startofanalysis', 'event', ''),
}


def _qwen_audio(turns: Sequence[Marked], style: Style) -> str:
    code = re.match('[a-z]*', style.language.lower())[0]  # of a record, so anything may be there
    heard = code or 'unknown'
    written = []
    for t in turns:
        kind = style.task or ('' if t.is_said else 'captioning')
        if kind in _TAGS and not t.has_clips:
            start, task, form = _TAGS[kind]
            text = heard if kind == 'transcription' else 'en'
            tags = [start, heard, task, text, 'notimestamps', *([form] if form else [])]
            asked = ''.join(f'<|{tag}|>' for tag in tags)
        else:
            asked = f'<|startofanalysis|><|{heard}|><|question|>{t.user}<|answer|>'
        written.append(f'{t.front}{asked}{t.answer}{style.end}')
    return style.begin + ''.join(written)


def _audio_flamingo3(turns: Sequence[Marked], style: Style) -> str:
    del style
    end = '<|im_end|>\n'
    said = [
        f'<|im_start|>user\n{t.front}{t.user}{end}<|im_start|>assistant\n{t.answer}{end}'
        for t in turns
    ]
    return f'<|im_start|>system\nYou are a helpful assistant.{end}' + ''.join(said)


FORMATS: Mapping[str, Format] = {
    'plain': Format(_plain),
    'ltu': Format(_ltu),
    'salmonn': Format(_salmonn, '<Speech>', '</Speech>', ' '),
    'qwen_audio': Format(_qwen_audio, '<audio>', '</audio>'),
    'audio_flamingo3': Format(_audio_flamingo3, gap='\n'),
}
