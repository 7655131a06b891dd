"""Asks a model about sounds, in several turns: in the terminal, or on a page of the browser.

python -m alm_jax.chat FILE --checkpoint CHECKPOINT
python -m alm_jax.chat --checkpoint CHECKPOINT --page

In the terminal, type the path of a file or drop the file on the window, and then ask; a question
may follow the path on the same line. Ctrl-C stops an answer. The page is served to this machine
alone. The checkpoint is a generative run, or a pretrained folder such as Qwen2-Audio.
"""

import atexit
import contextlib
import os
import pathlib
import shlex
import urllib.parse
from collections.abc import Sequence

from absl import flags

from alm_jax import config as config_lib
from alm_jax.audio import decode
from alm_jax.config import ConfigError
from alm_jax.speaking import choices
from alm_jax.speaking.conversation import Conversation
from alm_jax.speaking.page import PageServer

HELP = """\
PATH [QUESTION]   hears a file; drop it here, or type its path
QUESTION          is about the files since the last question, or the ones before
/new              begins again
/help             this
/quit             ends, as does Ctrl-D; Ctrl-C stops an answer"""
_HISTORY = 1000  # lines


def talk(conversation: Conversation, files: Sequence[str] = ()) -> None:
    """A conversation by the terminal's lines; returns at their end, or at /quit.

    Args:
      conversation: may have clips already.
      files: what is heard first.
    """
    for file in files:
        _hear(conversation, file)
    print('Type the path of a file, then ask. /help tells more.')
    while True:
        try:
            line = input('> ').strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print('  (/quit or Ctrl-D ends)')
            continue
        if line == '/quit':
            return
        try:
            _do(conversation, line)
        except ConfigError as error:
            print(f'error: {error}')
        except KeyboardInterrupt:
            print(' [stopped]')


def _do(conversation: Conversation, line: str) -> None:
    if line == '/new':
        conversation.forget()
    elif line == '/help':
        print(HELP)
    else:
        files, question = split(line)
        if line.startswith('/') and not files:
            raise ConfigError(f'{line.split()[0]} is no file and no command; see /help.')
        for file in files:
            _hear(conversation, file)
        if question:
            with contextlib.closing(conversation.answer(question)) as pieces:
                for piece in pieces:
                    print(piece, end='', flush=True)
            print()


def split(line: str) -> tuple[list[str], str]:
    """(files, the rest) of a line that may begin with paths, as terminals write what is dropped.

    They quote it, escape its spaces, or make a file:// address of it.
    """
    try:
        words = shlex.split(line)
    except ValueError:  # an apostrophe
        return [], line
    files = []
    for word in words:
        parts = urllib.parse.urlsplit(word)
        path = urllib.parse.unquote(parts.path) if parts.scheme == 'file' else word
        path = os.path.expanduser(path)
        if not os.path.isfile(path):
            break
        files.append(path)
    return files, ' '.join(words[len(files) :]) if files else line


def _hear(conversation: Conversation, file: str) -> None:
    excerpt = conversation.hear(file)
    heard = f'{excerpt.total:.1f} s'
    if excerpt.seconds < excerpt.total:
        heard = f'the first {excerpt.seconds:.1f} s of {heard}'
    print(f'heard {os.path.basename(file)}: {heard}')


def _remember() -> None:
    """Lines of earlier conversations at the arrow keys, where Python has readline."""
    with contextlib.suppress(ImportError, OSError):
        import readline  # not on every system

        home = pathlib.Path(os.environ.get('XDG_STATE_HOME') or '~/.local/state').expanduser()
        file = home / 'alm_jax' / 'chat_history'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        readline.set_history_length(_HISTORY)
        readline.read_history_file(file)
        atexit.register(readline.write_history_file, file)


def main(argv: list[str]) -> None:
    """See the head of this file."""
    given, files = flags.FLAGS, argv[1:]
    for file in files:
        decode.header(file)  # told before a large model is loaded
    speaker = choices.speaker(given)
    options = {'max_tokens': given.max_tokens, 'sampling': choices.sampling(given)}
    conversation = Conversation(speaker, given.max_seconds, options)
    if not given.page:
        _remember()
        talk(conversation, files)
        return
    for file in files:
        conversation.hear(file)
    server = PageServer(conversation, speaker.name, given.port)
    print(f'open {server.url}\n(Ctrl-C ends)', flush=True)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == '__main__':
    choices.define_flags(max_tokens=256)
    flags.DEFINE_bool('page', False, 'Serve a page to the browser of this machine.')
    flags.DEFINE_integer('port', 0, 'Of the page; 0 is any that is free.')
    flags.DEFINE_float(
        'max_seconds', 600.0, 'Heard of a file, if the model takes so much.', lower_bound=0.1
    )
    config_lib.run(main)
