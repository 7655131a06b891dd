"""A record as a card of the page: its sound, its texts and what is known of it."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from alm_jax.audio import illustrations
from alm_jax.audio.decode import AudioError
from alm_jax.data.hygiene import pictures

_SECONDS = 10.0  # of a clip that are heard and seen
_TEXTS = 5  # captions, turns and times of a card
_CHARS = 400  # of one of them


class Cards:
    """Makes cards, and embeds sound while there is room.

    Attributes:
      left_out: cards without their sound, for want of room.
    """

    def __init__(self, room: int):
        """``room``: bytes of all sounds and spectrograms together, as they stand in the page."""
        self._room = room
        self.left_out = 0

    def card(self, source, number: int) -> str:
        """The card of record ``number`` of a source."""
        try:
            stored = source.read(number)
        except (AudioError, OSError) as error:
            return f'<div class="card"><p>{text(source.id(number))}</p><p>{text(error)}</p></div>'
        try:
            sound = self._sound(stored)
        except AudioError as error:
            sound = f'<p class="note">{text(error)}</p>'
        parts = [sound, _captions(stored), _turns(stored['turns']), _chips(stored)]
        name = f'<p class="note">{text(stored["id"])}</p>'
        return f'<div class="card">{"".join(parts)}{name}</div>'

    def _sound(self, fields: Mapping[str, Any]) -> str:
        shown, rate = pictures.beginning(fields, _SECONDS)
        if not len(shown):
            return '<p class="note">No samples.</p>'
        times = _times(fields['times'], len(shown) / rate)
        drawn, heard = illustrations.spectrogram(shown, rate), illustrations.mp3(shown, rate)
        self._room -= (len(drawn) + len(heard)) * 4 // 3
        if self._room < 0:
            self.left_out += 1
            return f'<p class="note">Sound left out: the page would be too large.</p>{times}'
        name = text(fields['id'])
        cut = ''
        if fields['duration'] > _SECONDS:
            cut = f'<p class="note">The first {_SECONDS:g} s.</p>'
        return (
            f'{picture(drawn, "Spectrogram of " + fields["id"])}{times}<audio controls '
            f'preload="none" aria-label="{name}" src="data:audio/mpeg;base64,{_base64(heard)}">'
            f'</audio>{cut}'
        )


def _times(times: Sequence[Mapping], seconds: float) -> str:
    shown = [t for t in times if t['onset'] < seconds]
    if not shown:
        return ''
    bars = ''.join(
        f'<i style="left:{100 * t["onset"] / seconds:.1f}%;'
        f'width:{100 * (min(t["offset"], seconds) - t["onset"]) / seconds:.1f}%" '
        f'title="{text(t["text"])}"></i>'
        for t in shown
    )
    listed = ', '.join(f'{text(t["text"])} {t["onset"]:.1f} to {t["offset"]:.1f} s' for t in shown)
    return f'<div class="times">{bars}</div><p class="note">{_cut(listed)}</p>'


def _captions(fields: Mapping[str, Any]) -> str:
    said = [f'“{text(fields["transcript"])}”'] if fields['transcript'] else []
    captions = [text(c) if c.strip() else '<em>(empty)</em>' for c in fields['captions']]
    more = len(captions) - _TEXTS
    lines = [*map(_cut, captions[:_TEXTS]), *([f'... and {more} more'] * (more > 0))]
    if not lines and not fields['turns']:
        lines = ['<em>no caption</em>']
    quoted = ''.join(f'<p lang="{text(fields["language"])}">{_cut(line)}</p>' for line in said)
    if len(lines) < 2:
        return quoted + ''.join(f'<p dir="auto">{line}</p>' for line in lines)
    return quoted + '<ul>' + ''.join(f'<li dir="auto">{line}</li>' for line in lines) + '</ul>'


def _turns(turns: Sequence[Mapping]) -> str:
    more = len(turns) - _TEXTS
    return ''.join(
        f'<div class="turn"><b>{_cut(text(t["question"]))}</b><br>{_cut(text(t["answer"]))}</div>'
        for t in turns[:_TEXTS]
    ) + f'<p class="note">... and {more} more</p>' * (more > 0)


def _chips(fields: Mapping[str, Any]) -> str:
    known = [
        f'{fields["duration"]:.2f} s',
        f'{fields["rate"]} Hz',
        *(fields[name] for name in ('label', 'kind', 'language', 'licence', 'provenance')),
        *(f'#{tag}' for tag in fields['tags'][:8]),
    ]
    return f'<p class="chips">{"".join(f"<span>{text(k)}</span>" for k in known if k)}</p>'


def picture(png: bytes, alt: str) -> str:
    """A PNG as part of the page."""
    return f'<img alt="{text(alt)}" src="data:image/png;base64,{_base64(png)}">'


def text(value: object) -> str:
    """Escaped for HTML."""
    return html.escape(str(value))


def _cut(escaped: str) -> str:
    if len(escaped) <= _CHARS:
        return escaped
    return escaped[:_CHARS].rsplit('&', 1)[0].rsplit('<', 1)[0] + '…'


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
