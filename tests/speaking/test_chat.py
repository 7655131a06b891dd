"""chat in the terminal, and the conversation behind it."""

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from alm_jax import chat
from alm_jax.config import ConfigError
from alm_jax.decoding.sampling import Sampling
from alm_jax.interop import audio_lm_dialogue
from alm_jax.speaking.conversation import Conversation
from alm_jax.speaking.speaker import load_speaker

OPTIONS = {'max_tokens': 8, 'sampling': Sampling()}
SECONDS = 120


def conversation(speaker, *files):
    made = Conversation(speaker, 600.0, OPTIONS)
    for file in files:
        made.hear(file)
    return made


def test_turns_are_what_the_model_answers_to(chatting, chat_lm, noises):
    talk = conversation(chatting, noises / '3.wav')
    first = ''.join(talk.answer('the dog ?'))
    talk.hear(noises / '7.wav')
    second = ''.join(talk.answer('and then ?'))
    clips = [soundfile.read(noises / name, dtype='float32') for name in ('3.wav', '7.wav')]
    turns = [('<audio>the dog ?', first), ('<audio>and then ?', None)]
    assert chatting.write([(clips, turns)], **OPTIONS) == [second]
    assert talk.turns == [('<audio>the dog ?', first), ('<audio>and then ?', second)]
    alone = chatting.write([(clips[1:], [('<audio>and then ?', None)])], **OPTIONS)
    assert alone != [second]
    talk.forget()
    assert (talk.clips, talk.turns) == ([], [])


def test_the_template_of_the_folder_is_written(chatting, chat_lm):
    """What users and models say is no markup; the model's own token is a place."""
    from alm_jax.load import load

    model = load(chat_lm)
    turns = [('the <|AUDIO|> dog ?', 'rain <|im_end|>'), ('no cat ?', None)]
    ids, _ = audio_lm_dialogue.read(model, turns, 1)
    words = [model.tokenizer.id_to_token(i) for i in ids]
    assert words.count('<|AUDIO|>') == 1
    assert words[words.index('<|AUDIO|>') - 1] == 'the'
    assert words.count('<|im_start|>') == 4
    assert words.count('<|im_end|>') == 3
    assert words[-1] not in ('<|im_end|>', '<|AUDIO|>')


def test_a_stopped_answer_is_kept_as_far_as_it_came(chatting, noises):
    talk = conversation(chatting, noises / '3.wav')
    with contextlib.closing(talk.answer('the dog ?')) as pieces:
        first = next(pieces)
    assert talk.turns == [('<audio>the dog ?', first)]
    whole = ''.join(conversation(chatting, noises / '3.wav').answer('the dog ?'))
    assert whole.startswith(first)
    assert whole != first


def test_mistakes_leave_the_conversation_as_it_was(chatting, noises, tmp_path):
    talk = conversation(chatting)
    with pytest.raises(ConfigError, match='give a file first'):
        list(talk.answer('the dog ?'))
    talk.hear(noises / '3.wav')
    for question, message in ((' ', 'ask something'), ('<audio> <audio>', 'clip 2')):
        with pytest.raises(ConfigError, match=message):
            list(talk.answer(question))
    (tmp_path / 'no.wav').write_text('no sound')
    with pytest.raises(ConfigError, match=r'no\.wav cannot be decoded'):
        talk.hear(tmp_path / 'no.wav')
    assert len(talk.clips) == 1
    assert talk.turns == []
    for _ in range(15):
        talk.hear(noises / '3.wav')
    with pytest.raises(ConfigError, match='16 clips are the most'):
        talk.hear(noises / '3.wav')


def test_captioners_do_not_converse(speaker, tmp_path):
    import dataclasses

    silent = dataclasses.replace(speaker, slots=None)
    with pytest.raises(ConfigError, match='takes no questions'):
        conversation(silent)


def test_lines_begin_with_files_as_terminals_drop_them(noises, tmp_path):
    name = tmp_path / "a dog's bark.wav"
    name.write_bytes((noises / '3.wav').read_bytes())
    quoted = str(name).replace("'", "'\\''")
    escaped = str(name).replace(' ', r'\ ').replace("'", r'\'')
    address = name.as_uri()
    for text in (f"'{quoted}'", escaped, address):
        assert chat.split(text) == ([str(name)], '')
        assert chat.split(f'{text} what is it?') == ([str(name)], 'what is it?')
    assert chat.split(f'{noises}/3.wav {noises}/4.wav') == (
        [f'{noises}/3.wav', f'{noises}/4.wav'],
        '',
    )
    for question in ("what's this?", 'what is  this', '/nowhere.wav'):
        assert chat.split(question) == ([], question)


def test_lines_in_and_answers_out(run, chat_lm, noises, tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / 'long.wav', 0.1 * rng.standard_normal(16_000 * 7), 16_000)
    lines = ['the dog ?', f'{noises}/3.wav the dog ?', f'{tmp_path}/long.wav', 'and then ?']
    lines += ['/help', '/what', '/new', 'the dog ?', '/quit', 'never read']
    environment = {'XDG_STATE_HOME': str(tmp_path)}
    arguments = ('--checkpoint', chat_lm, '--max_tokens', 8)
    done = run('chat', *arguments, said='\n'.join(lines), **environment)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert said.count('error: give a file first.') == 2
    assert 'heard 3.wav: 0.8 s' in said
    assert 'heard long.wav: the first 2.0 s of 7.0 s' in said
    assert 'Ctrl-C stops an answer' in said
    assert 'error: /what is no file and no command' in said
    speaker = load_speaker(chat_lm)
    talk = conversation(speaker, noises / '3.wav')
    assert ''.join(talk.answer('the dog ?')) in said
    talk.hear(tmp_path / 'long.wav')
    assert ''.join(talk.answer('and then ?')) in said
    assert done.stderr == ''


# The terminal sends Ctrl-C to the program that it controls.
AS_A_SHELL = (
    'import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); '
    'os.execv(sys.executable, [sys.executable, "-m", "alm_jax.chat", *sys.argv[1:]])'
)


class Terminal:
    """A program with a terminal of its own."""

    def __init__(self, *arguments, **environment):
        self._ours, theirs = pty.openpty()
        self.said = ''
        self.process = subprocess.Popen(
            [sys.executable, '-c', AS_A_SHELL, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        os.close(theirs)

    def type(self, text):
        self.said = ''
        os.write(self._ours, text.encode())

    def until(self, pattern):
        deadline = time.monotonic() + SECONDS
        while not re.search(pattern, self.said):
            assert time.monotonic() < deadline, self.said
            if select.select([self._ours], [], [], 0.1)[0]:
                self.said += os.read(self._ours, 1 << 16).decode(errors='replace')
            assert self.process.poll() is None or re.search(pattern, self.said), self.said


def test_ctrl_c_stops_an_answer_and_not_the_program(chat_lm, noises, tmp_path):
    """The model writes until its tokens are used up, of which nobody would wait for the end."""
    arguments = (noises / '3.wav', '--checkpoint', chat_lm, '--max_tokens', 20_000)
    terminal = Terminal(*arguments, XDG_STATE_HOME=str(tmp_path))
    terminal.until(r'heard 3\.wav[\s\S]*> ')
    terminal.type('the dog ?\n')
    terminal.until(r'dog \?\s+[^\n]{12}')
    terminal.type('\x03')
    terminal.until(r'\[stopped\]\s+> ')
    time.sleep(1)  # the prompt is written just before the line is waited for
    terminal.type('\x03')
    terminal.until(r'/quit or Ctrl-D ends\)\s+> ')
    terminal.type('\x1b[A')  # the line before
    terminal.until('the dog')
    terminal.type('\x15/quit\n')
    assert terminal.process.wait(SECONDS) == 0
    assert (tmp_path / 'alm_jax/chat_history').read_text().splitlines()[0] == 'the dog ?'
    assert (tmp_path / 'alm_jax/chat_history').stat().st_mode & 0o077 == 0


def test_mistakes(run, chat_lm, tiny_run, noises):
    for arguments, message in (
        ((), 'give --checkpoint'),
        (('no.wav', '--checkpoint', chat_lm), 'no.wav cannot be read'),
        (('--checkpoint', tiny_run), 'embeds audio and text and writes nothing'),
    ):
        done = run('chat', *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert 'Traceback' not in done.stderr
