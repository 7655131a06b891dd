"""The page of a chat: what its server refuses, and how it works in a real browser."""

import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import threading
import time

import numpy as np
import pytest
import soundfile

from alm_jax.decoding.sampling import Sampling
from alm_jax.speaking.conversation import Conversation
from alm_jax.speaking.page import PageServer

OPTIONS = {'max_tokens': 8, 'sampling': Sampling()}
SECONDS = 60


@pytest.fixture
def server(chatting):
    made = PageServer(Conversation(chatting, 600.0, OPTIONS), 'small <b>model</b>')
    thread = threading.Thread(target=made.serve_forever, kwargs={'poll_interval': 0.05})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(server, method, path, body=None, token=None, **headers):
    """(status, headers, body) of a request."""
    connection = http.client.HTTPConnection('127.0.0.1', server.server_port, timeout=SECONDS)
    place = f'/{server.token if token is None else token}/{path}'
    headers = {name.replace('_', '-'): value for name, value in headers.items()}
    connection.request(method, place, body=body, headers=headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def lines(content):
    return [json.loads(line) for line in content.splitlines()]


def test_a_conversation(server, chatting, noises):
    status, headers, content = ask(server, 'GET', '')
    assert status == 200
    assert "script-src 'nonce-" in headers['Content-Security-Policy']
    assert b'NONCE' not in content
    wav = (noises / '3.wav').read_bytes()
    status, _, content = ask(server, 'POST', 'clips', wav, X_Name='d%C3%A9j%C3%A0.wav')
    assert status == 200
    assert [clip['name'] for clip in json.loads(content)['clips']] == ['déjà.wav']
    status, headers, content = ask(server, 'POST', 'answer', 'the dog ?')
    assert (status, headers['Content-Type']) == (200, 'application/x-ndjson')
    pieces = [line['text'] for line in lines(content)[:-1]]
    assert len(pieces) > 1
    assert lines(content)[-1] == {}
    other = Conversation(chatting, 600.0, OPTIONS)
    other.hear(noises / '3.wav')
    assert ''.join(pieces) == ''.join(other.answer('the dog ?'))
    state = json.loads(ask(server, 'GET', 'state')[2])
    assert state['turns'] == [['<audio>the dog ?', ''.join(pieces)]]
    status, headers, content = ask(server, 'GET', 'clips/0')
    assert status == 200
    heard = soundfile.read(io.BytesIO(content), dtype='float32')[0]
    np.testing.assert_allclose(heard, soundfile.read(noises / '3.wav')[0], atol=1e-4)
    assert headers['Content-Type'] == 'audio/wav'
    assert ask(server, 'POST', 'forget', b'')[0] == 200
    assert json.loads(ask(server, 'GET', 'state')[2])['clips'] == []


def test_what_is_refused(server, noises):
    own = f'127.0.0.1:{server.server_port}'
    wav = (noises / '3.wav').read_bytes()
    for expected, method, path, options in (
        (404, 'GET', '', {'token': 'guess'}),
        (404, 'GET', '', {'token': ''}),
        (403, 'GET', '', {'Host': 'evil.example'}),
        (403, 'GET', '', {'Host': f'evil.example:{server.server_port}'}),
        (403, 'POST', 'answer', {'body': 'hi', 'Origin': 'http://evil.example', 'Host': own}),
        (403, 'POST', 'answer', {'body': 'hi', 'Origin': 'null', 'Host': own}),
        (404, 'GET', '../../etc/passwd', {}),
        (404, 'GET', 'page.html', {}),
        (404, 'GET', 'clips/0', {}),
        (404, 'GET', 'clips/../page.py', {}),
        (404, 'GET', 'clips/-1', {}),
        (404, 'GET', 'answer', {}),
        (501, 'PUT', 'clips', {'body': wav}),
        (422, 'POST', 'clips', {'body': b'no sound'}),
        (422, 'POST', 'clips', {'body': b''}),
    ):
        status, _, content = ask(server, method, path, **options)
        assert status == expected, (method, path, options, content)
    assert server.conversation.clips == []
    assert lines(ask(server, 'POST', 'answer', 'hi')[2]) == [{'error': 'give a file first.'}]


def test_bodies_are_bounded(server, monkeypatch):
    for path, length in (('clips', (64 << 20) + 1), ('answer', (1 << 16) + 1)):
        with socket.create_connection(('127.0.0.1', server.server_port), SECONDS) as link:
            head = f'POST /{server.token}/{path} HTTP/1.1\r\nContent-Length: {length}\r\n'
            link.sendall(f'{head}Host: 127.0.0.1:{server.server_port}\r\n\r\n'.encode())
            assert b' 413 ' in link.recv(1 << 16).splitlines()[0]
    for header in ('Transfer-Encoding: chunked', 'Content-Length: x', 'Content-Length: -5'):
        with socket.create_connection(('127.0.0.1', server.server_port), SECONDS) as link:
            head = f'POST /{server.token}/clips HTTP/1.1\r\n{header}\r\n'
            link.sendall(f'{head}Host: 127.0.0.1:{server.server_port}\r\n\r\n'.encode())
            assert b' 411 ' in link.recv(1 << 16).splitlines()[0]


def test_only_this_machine_is_served(server):
    assert server.server_address[0] == '127.0.0.1'
    assert len(server.token) >= 32


def test_one_answer_at_a_time_and_it_can_be_stopped(server, noises, monkeypatch):
    ask(server, 'POST', 'clips', (noises / '3.wav').read_bytes())
    going = threading.Event()
    deadline = time.monotonic() + SECONDS

    def endless(question):
        while time.monotonic() < deadline:
            going.set()
            yield 'on and '

    monkeypatch.setattr(server.conversation, 'answer', endless)
    found = []
    thread = threading.Thread(target=lambda: found.append(ask(server, 'POST', 'answer', 'hi')))
    thread.start()
    assert going.wait(SECONDS)
    assert ask(server, 'POST', 'answer', 'hi')[0] == 409
    assert ask(server, 'POST', 'forget', b'')[0] == 409
    assert ask(server, 'POST', 'stop', b'')[0] == 200
    thread.join()
    assert time.monotonic() < deadline
    assert lines(found[0][2])[-1] == {}
    monkeypatch.undo()
    assert ask(server, 'POST', 'answer', 'the dog ?')[0] == 200


def test_a_browser_that_goes_away_stops_the_answer(server, noises, monkeypatch, capfd):
    ask(server, 'POST', 'clips', (noises / '3.wav').read_bytes())
    closed = threading.Event()
    deadline = time.monotonic() + 2 * SECONDS

    def endless(question):
        try:
            while time.monotonic() < deadline:
                yield 'on and '
        finally:
            closed.set()

    monkeypatch.setattr(server.conversation, 'answer', endless)
    with socket.create_connection(('127.0.0.1', server.server_port), SECONDS) as link:
        head = f'POST /{server.token}/answer HTTP/1.1\r\nContent-Length: 2\r\n'
        link.sendall(f'{head}Host: 127.0.0.1:{server.server_port}\r\n\r\nhi'.encode())
        assert link.recv(1)
    assert closed.wait(SECONDS)
    assert 'Traceback' not in capfd.readouterr().err


CHROMIUM = (
    '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync '
    '--disable-background-networking --disable-component-update --disable-dev-shm-usage '
    '--use-fake-ui-for-media-stream --use-fake-device-for-media-stream '
    '--autoplay-policy=no-user-gesture-required'
)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """A Chromium of its own, whose microphone beeps; installed where that is possible."""
    webdriver = pytest.importorskip('selenium.webdriver')
    if not (shutil.which('chromium') and shutil.which('chromedriver')):
        if os.getuid() or not shutil.which('apt-get'):
            pytest.skip('no chromium and chromedriver; apt-get install chromium chromium-driver')
        install = ['apt-get', 'install', '-qq', '-y', 'chromium', 'chromium-driver']
        environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
        for command in (['apt-get', '-qq', 'update'], install):
            subprocess.run(command, env=environment, check=True, capture_output=True)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    profile = f'--user-data-dir={tmp_path_factory.mktemp("profile")}'
    for argument in (*CHROMIUM.split(), profile):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    service = webdriver.ChromeService(shutil.which('chromedriver'))
    driver = webdriver.Chrome(options, service)
    driver.set_script_timeout(SECONDS)
    yield driver
    driver.quit()


class Page:
    """What a user sees and does."""

    def __init__(self, browser):
        self.browser = browser

    def js(self, code, *given):
        return self.browser.execute_script(code, *given)

    def texts(self, kind):
        return self.js(
            'return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)', kind
        )

    def until(self, code, *given):
        """Waits until JavaScript says true, and the page is ready for more."""
        deadline = time.monotonic() + SECONDS
        while not (self.js(f'return !at("send").disabled && ({code})', *given)):
            assert time.monotonic() < deadline, self.js('return document.body.innerText')
            time.sleep(0.05)

    def find(self, name):
        return self.browser.find_element('id', name)

    def choose(self, file, number):
        self.find('file').send_keys(str(file))
        self.until('document.querySelectorAll(".clip audio").length == arguments[0]', number)

    def ask(self, question, number):
        self.find('question').send_keys(question + '\n')
        self.until('document.querySelectorAll(".answer").length == arguments[0]', number)

    def durations(self):
        self.until('[...document.querySelectorAll("audio")].every(a => a.duration > 0)')
        return self.js('return [...document.querySelectorAll("audio")].map(a => a.duration)')


@pytest.mark.slow
def test_in_a_browser(server, browser, noises, tmp_path):
    browser.get(server.url)
    page = Page(browser)
    page.until('true')
    assert page.texts('h1') == ['small <b>model</b>']

    page.choose(noises / '3.wav', 1)
    assert page.texts('.clip')[0].startswith('3.wav (0.8 s)')
    assert page.durations() == [pytest.approx(0.8, abs=0.01)]

    page.ask('the dog ?', 1)
    turns = server.conversation.turns
    assert page.texts('.asked') == ['the dog ?']
    assert page.texts('.answer') == [turns[0][1]]
    assert page.js('return at("question").value') == ''

    # A second file is dropped; the next question is about both.
    content = list((noises / '7.wav').read_bytes())
    drop = (
        'const data = new DataTransfer(); data.items.add(new File([new Uint8Array(arguments[0])], '
        'arguments[1])); document.dispatchEvent(new DragEvent("drop", {dataTransfer: data}))'
    )
    page.js(drop, content, '<i>seven</i>.wav')
    page.until('document.querySelectorAll(".clip audio").length == 2')
    assert page.texts('.clip')[1].startswith('<i>seven</i>.wav (1.2 s)')
    page.ask('and then ?', 2)
    assert [asked for asked, _ in turns] == ['<audio>the dog ?', '<audio>and then ?']
    assert page.texts('.answer') == [answer for _, answer in turns]

    # What is no sound is told, and the conversation goes on.
    page.js(drop, list(b'no sound'), 'no.wav')
    page.until('at("error").textContent != ""')
    assert 'no.wav cannot be decoded as audio' in page.texts('#error')[0]

    # The microphone.
    page.find('record').click()
    time.sleep(1.5)
    page.find('record').click()
    page.until('document.querySelectorAll(".clip audio").length == 3')
    assert page.texts('#error') == ['']
    assert page.durations()[2] > 0.5
    assert np.abs(server.conversation.clips[2][1].waveform).max() > 0.01
    page.ask('one ?', 3)

    # All of it is there again; then none.
    before = page.texts('#talk > div')
    browser.refresh()
    page.until('document.querySelectorAll(".clip audio").length == 3')
    assert page.texts('#talk > div') == before
    page.find('forget').click()
    page.until('document.querySelectorAll("#talk > div").length == 0')
    page.find('question').send_keys('the dog ?\n')
    page.until('at("error").textContent == "give a file first."')
    assert page.js('return at("question").value') == 'the dog ?'

    severe = [e['message'] for e in browser.get_log('browser') if e['level'] == 'SEVERE']
    assert all('422' in message for message in severe), severe


@pytest.mark.slow
def test_an_answer_is_stopped_in_a_browser(server, browser, noises, monkeypatch):
    server.conversation.hear(noises / '3.wav')
    monkeypatch.setitem(OPTIONS, 'max_tokens', 20_000)
    browser.get(server.url)
    page = Page(browser)
    page.until('document.querySelectorAll(".clip audio").length == 1')
    page.find('question').send_keys('the dog ?\n')
    deadline = time.monotonic() + SECONDS
    while not page.js('return document.querySelector(".answer")?.textContent'):
        assert time.monotonic() < deadline
    page.find('stop').click()
    page.until('true')
    [(_, answer)] = server.conversation.turns
    assert page.texts('.answer') == [answer]
    assert len(answer.split()) < 20_000
