"""Downloads of official files, from a server of this machine."""

import dataclasses
import functools
import hashlib
import http.server
import threading
from typing import ClassVar

import pytest

from alm_jax.config import ConfigError
from alm_jax.data import catalog
from alm_jax.data.catalog.building import fetch


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``content`` whole or from a byte on, or breaks off after some bytes."""

    content = b''
    breaks_at = None
    ranges = True
    asked: ClassVar[list] = []  # of the class of one test

    def do_GET(self):
        wanted = self.headers.get('Range', '')
        self.asked.append(wanted)
        if self.path == '/missing':
            return self.send_error(404)
        start = int(wanted[6:-1]) if wanted and self.ranges else 0
        if start >= len(self.content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : self.breaks_at])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(clips):
    """(class of the handler, address of the server)."""
    handler = type('Handler', (Server,), {'content': clips.content('wav', 9), 'asked': []})
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
        thread = threading.Thread(target=functools.partial(running.serve_forever, 0.01))
        thread.start()
        yield handler, f'http://127.0.0.1:{running.server_port}'
        running.shutdown()
        thread.join()


def fetched(tmp_path, address, content, path='/x.wav'):
    """The names fetched into ``tmp_path`` of a dataset with one download."""
    (tmp_path / 'sums').write_text(f'{hashlib.sha256(content).hexdigest()}  clotho/sounds/x.wav\n')
    dataset = dataclasses.replace(
        catalog.find('clotho'), downloads=lambda config: {'sounds/x.wav': address + path}
    )
    return fetch.fetch(dataset, '', tmp_path, tmp_path / 'sums')


def test_a_file_is_fetched_once(server, tmp_path):
    handler, address = server
    assert fetched(tmp_path, address, handler.content) == ['sounds/x.wav']
    assert (tmp_path / 'sounds/x.wav').read_bytes() == handler.content
    assert fetched(tmp_path, address, handler.content) == []
    assert handler.asked == ['']


@pytest.mark.parametrize('ranges', [True, False])
def test_a_broken_download_goes_on(server, tmp_path, ranges):
    handler, address = server
    half = len(handler.content) // 2
    handler.breaks_at, handler.ranges = half, ranges
    with pytest.raises(ConfigError, match=r'Cannot fetch (?s:.*)again, which goes on'):
        fetched(tmp_path, address, handler.content)
    assert not (tmp_path / 'sounds/x.wav').exists()
    handler.breaks_at = None
    fetched(tmp_path, address, handler.content)
    assert (tmp_path / 'sounds/x.wav').read_bytes() == handler.content
    assert handler.asked == ['', f'bytes={half}-']


def test_a_whole_part_that_only_lacks_its_name(server, tmp_path):
    handler, address = server
    (tmp_path / 'sounds').mkdir()
    (tmp_path / 'sounds/x.wav.part').write_bytes(handler.content)
    fetched(tmp_path, address, handler.content)
    assert (tmp_path / 'sounds/x.wav').read_bytes() == handler.content


def test_another_content_is_not_kept(server, tmp_path):
    _, address = server
    with pytest.raises(ConfigError, match=r'has SHA-256 (?s:.*); expected .* It is not kept'):
        fetched(tmp_path, address, b'what it was')
    assert list((tmp_path / 'sounds').iterdir()) == []


def test_what_cannot_be_fetched_says_what_to_do(server, tmp_path):
    _, address = server
    with pytest.raises(ConfigError, match=r'Not Found(?s:.*)put the file at .*sounds/x\.wav'):
        fetched(tmp_path, address, b'', '/missing')
    with pytest.raises(ConfigError, match=r'refused'):
        fetched(tmp_path, 'http://127.0.0.1:1', b'')
    with pytest.raises(ConfigError, match=r'asks you to do it\.\nclotho_captions'):
        fetch.fetch(catalog.find('clotho'), '', tmp_path)


def test_every_download_has_an_address_and_a_sum():
    wanted = set()
    for name in catalog.names():
        if name not in catalog.OWN_BUILDERS:
            for config in catalog.find(name).configs:
                for file, address in catalog.find(name).downloads(config).items():
                    assert address.startswith('http')
                    wanted.add(f'{name}/{file}')
    sums = fetch.read_sums()
    assert set(sums) == wanted
    assert all(len(digest) == 64 for digest in sums.values())
    assert len(catalog.find('librispeech').downloads('clean_100')) == 3
