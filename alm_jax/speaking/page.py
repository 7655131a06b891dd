"""A conversation on a page of this machine's browser.

The server listens on the loopback address. Other programs and pages of this machine can reach that
as well, so everything lies under a random name, and requests that were made for another host (DNS
rebinding) or by another page are refused. Nothing is read from disk on request.
"""

import contextlib
import hmac
import http.server
import importlib.resources
import io
import json
import secrets
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import soundfile

from alm_jax.config import ConfigError
from alm_jax.speaking.conversation import Conversation

MOST_BYTES = 64 << 20  # of a file
MOST_TEXT = 1 << 16  # bytes of a question
_NAME = 200  # characters of a file's name
_PATIENCE = 60.0  # seconds without a word from a browser
_HEADERS = {
    'Cache-Control': 'no-store',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',  # the address is the key
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageServer(http.server.ThreadingHTTPServer):
    """Serves one conversation until it is shut down.

    Attributes:
      url: of the page.
    """

    daemon_threads = True

    def __init__(self, conversation: Conversation, title: str, port: int = 0):
        """
        Args:
          conversation: which all tabs of the browser share.
          title: of the page.
          port: 0 is any that is free.

        Raises:
          ConfigError: another program has the port.
        """
        self.token = secrets.token_urlsafe(24)
        self.conversation, self.title = conversation, title
        self.turn, self.stopped = threading.Lock(), threading.Event()
        try:
            super().__init__(('127.0.0.1', port), _Handler)
        except OSError as error:
            raise ConfigError(f'port {port} cannot be used ({error.strerror}).') from error
        self.hosts = {f'{name}:{self.server_port}' for name in ('127.0.0.1', 'localhost')}
        self.url = f'http://127.0.0.1:{self.server_port}/{self.token}/'

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no mistake of ours; what is keeps its traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _RefusedError(Exception):
    """A request that gets no answer but this status."""

    def __init__(self, status: HTTPStatus, reason: str = ''):
        super().__init__(reason or status.phrase)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = 'HTTP/1.1'
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """The page, and what it asks for."""
        self._serve({'': self._page, 'state': self._state, 'clips': self._clip})

    def do_POST(self) -> None:
        """What a user does."""
        self._serve(
            {'clips': self._hear, 'answer': self._say, 'forget': self._forget, 'stop': self._stop}
        )

    def log_message(self, *_: Any) -> None:
        """The terminal is for the address of the page."""

    def _serve(self, actions: Mapping[str, Callable[[str], None]]) -> None:
        try:
            name, _, rest = self._checked_path().partition('/')
            if name not in actions:
                raise _RefusedError(HTTPStatus.NOT_FOUND)
            actions[name](rest)
        except _RefusedError as error:
            self.close_connection = True  # its body was not read
            self._send(error.status, {'error': str(error)})
        except ConfigError as error:
            self._send(HTTPStatus.UNPROCESSABLE_ENTITY, {'error': str(error)})

    def _checked_path(self) -> str:
        """The path behind the token."""
        host, origin = self.headers.get('Host', ''), self.headers.get('Origin')
        if host not in self.server.hosts or origin not in (None, f'http://{host}'):
            raise _RefusedError(HTTPStatus.FORBIDDEN)
        path = urllib.parse.urlsplit(self.path).path
        token, _, rest = path.removeprefix('/').partition('/')
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _RefusedError(HTTPStatus.NOT_FOUND)
        return rest

    def _body(self, most: int) -> bytes:
        length = self.headers.get('Content-Length', '')
        if not length.isdecimal():
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > most:
            reason = f'{int(length):,} bytes; {most:,} are the most'
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        return self.rfile.read(int(length))

    def _send(self, status: HTTPStatus, content: Any) -> None:
        """JSON, or (its type, bytes)."""
        kind, body = 'application/json', content
        if isinstance(content, tuple):
            kind, body = content
        else:
            body = json.dumps(content).encode()
        self._head(status, kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header('Content-Type', kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[Conversation]:
        """The conversation, for one request at a time."""
        if not self.server.turn.acquire(blocking=False):
            raise _RefusedError(HTTPStatus.CONFLICT, 'an answer is being written; stop it first')
        try:
            yield self.server.conversation
        finally:
            self.server.turn.release()

    def _page(self, _: str) -> None:
        nonce = secrets.token_urlsafe(16)
        page = importlib.resources.files('alm_jax.speaking').joinpath('page.html').read_text()
        self._head(HTTPStatus.OK, 'text/html; charset=utf-8')
        self.send_header('Content-Security-Policy', _POLICY.format(nonce))
        body = page.replace('NONCE', nonce).encode()
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _state(self, _: str) -> None:
        conversation = self.server.conversation
        clips = [
            {'name': name, 'seconds': excerpt.seconds, 'total': excerpt.total}
            for name, excerpt in conversation.clips
        ]
        state = {'title': self.server.title, 'most_bytes': MOST_BYTES, 'clips': clips}
        self._send(HTTPStatus.OK, {**state, 'turns': conversation.turns})

    def _clip(self, number: str) -> None:
        """What is heard of a clip, as WAV."""
        clips = self.server.conversation.clips
        if not number.isdecimal() or int(number) >= len(clips):
            raise _RefusedError(HTTPStatus.NOT_FOUND)
        _, excerpt = clips[int(number)]
        wav = io.BytesIO()
        soundfile.write(wav, excerpt.waveform, excerpt.rate, 'PCM_16', format='WAV')
        self._send(HTTPStatus.OK, ('audio/wav', wav.getvalue()))

    def _hear(self, _: str) -> None:
        content = self._body(MOST_BYTES)
        name = urllib.parse.unquote(self.headers.get('X-Name', '')) or 'clip'
        with self._turn() as conversation:
            conversation.hear(content, name[:_NAME])
        self._state('')

    def _forget(self, _: str) -> None:
        self._body(0)
        with self._turn() as conversation:
            conversation.forget()
        self._state('')

    def _stop(self, _: str) -> None:
        self._body(0)
        self.server.stopped.set()
        self._send(HTTPStatus.OK, {})

    def _say(self, _: str) -> None:
        """Lines of JSON as they come: {'text': piece} ..., at last {} or {'error': reason}."""
        question = self._body(MOST_TEXT).decode(errors='replace')
        with self._turn() as conversation:
            self.server.stopped.clear()
            self._head(HTTPStatus.OK, 'application/x-ndjson')
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            end = {}
            with contextlib.closing(conversation.answer(question)) as pieces:
                try:
                    for piece in pieces:
                        self._line({'text': piece})
                        if self.server.stopped.is_set():
                            break
                except ConfigError as error:
                    end = {'error': str(error)}
        self._line(end)
        self.wfile.write(b'0\r\n\r\n')

    def _line(self, content: Mapping[str, str]) -> None:
        line = json.dumps(content).encode() + b'\n'
        self.wfile.write(b'%x\r\n%s\r\n' % (len(line), line))
