"""Turns about clips as pretrained audio language models read them.

A folder with a chat template has them written by it, so that what is said cannot act as a special
token; else as the family's ``AudioLm.turn`` and ``answer`` say.
"""

import functools
import pathlib
from collections.abc import Sequence

from alm_jax.data import dialogue_tokens
from alm_jax.interop.audio_lm import AudioLm
from alm_jax.text import dialogue
from alm_jax.text.dialogue import Dialogue, Turn
from alm_jax.text.language_tokenizer import LanguageTokenizer

PLACE = '<audio>'


def read(model: AudioLm, turns: Sequence[Turn], clips: int) -> tuple[list[int], list[int]]:
    """A prompt for ``AudioLm.generate``.

    Args:
      model: of the prompt.
      turns: (instruction, response), see ``alm_jax.text.dialogue``; the last response is None. A
        clip's place may also be the model's own token.
      clips: how many are heard.

    Returns:
      (token ids with the audio's token once a clip, the numbers of the clips in their order).

    Raises:
      ConfigError: turns that cannot be written.
    """
    turns = [(said.replace(model.place, PLACE), answer) for said, answer in turns]
    written = _chat(model.folder)
    if written is None:
        return _plain(model, turns, clips)
    encoded = dialogue_tokens.encode(written, turns, [1] * clips)
    ids = encoded.token_ids
    ids[ids == dialogue_tokens.AUDIO] = model.module.audio_id
    return ids.tolist(), list(encoded.clips)


@functools.cache
def _chat(folder: pathlib.Path) -> Dialogue | None:
    if not (folder / 'tokenizer.json').is_file():
        return None
    tokenizer = LanguageTokenizer.load(folder)
    return Dialogue('chat', tokenizer) if tokenizer.chat_template else None


def _plain(model: AudioLm, turns: Sequence[Turn], clips: int) -> tuple[list[int], list[int]]:
    own, rounds = dialogue.placed(turns, clips)
    text, order = '', []
    for turn in rounds:
        asked = ''
        for piece in (own[number] for number in (*turn.front, *turn.user)):
            asked += piece.text if piece.clip is None else model.slot.format(model.place)
            order += [] if piece.clip is None else [piece.clip]
        answer = ''.join(own[number].text for number in turn.answer)
        text += model.turn.format(asked) + (model.answer.format(answer) if answer else '')
    return model.prompt_ids(text), order
