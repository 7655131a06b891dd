"""The report page: whole, offline, small, and readable without the data."""

import base64
import html.parser
import io
import json
import re

import pytest
import soundfile

from alm_jax.config import ConfigError
from alm_jax.evals import result
from alm_jax.evals.report import write_report
from alm_jax.evals.retrieval import Retrieval
from alm_jax.evals.zero_shot import ZeroShot
from alm_jax.training import goodput


class Page(html.parser.HTMLParser):
    """Tags and attributes; fails on a tag that is closed wrongly."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ('meta', 'img'):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


@pytest.fixture(scope='module')
def run(tmp_path_factory, tiny_run, model, recordings_data):
    """A workdir with metrics and two evaluations at two steps."""
    workdir = tmp_path_factory.mktemp('run')
    (workdir / 'config.json').write_text((tiny_run / 'config.json').read_text())
    lines = [{'step': s, 'train/loss': 3 / s, 'train/clips_per_s': 9.0 * s} for s in (1, 2, 3)]
    lines[0]['train/compile_seconds'] = 7.0
    usage = goodput.Goodput(workdir)
    usage.book(goodput.STEPS, 5.0, 3)
    usage.book('evaluation', 15.0)
    usage.write()
    (workdir / 'profile').mkdir()
    (workdir / 'profile/breakdown.txt').write_text('audio 52.00 ms <a step>')
    lines.append({'step': 3, 'zero_shot/top1': 0.1})
    lines.append({'step': 4, 'train/loss': None})
    (workdir / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    for make in (ZeroShot, Retrieval):
        found = make(model.predictors, data=recordings_data).run(model.params, model.extra)
        for step in (1, 2):
            result.write(found, workdir, make.name, step, model.checkpoint_sha256)
    return workdir


@pytest.fixture(scope='module')
def text(run):
    return write_report(run).read_text()


def test_the_page_needs_nothing_from_outside(text):
    for tag, attributes in Page(text).elements:
        assert tag not in ('script', 'link', 'iframe')
        for name in ('src', 'href'):
            if name in attributes:
                assert attributes[name].startswith(('data:', '#'))
    assert 'url(' not in text
    assert len(text) < 15_000_000


def test_every_picture_has_an_alt_text(text):
    pictures = [attributes for tag, attributes in Page(text).elements if tag == 'img']
    assert len(pictures) > 30
    assert all(picture['alt'] for picture in pictures)
    for name in ('Confusion matrix', 'Similarity', 'loss over steps', 'top-1 over steps'):
        assert any(picture['alt'].startswith(name) for picture in pictures), name


def test_the_page_tells_how_fast_the_run_was_and_where_its_time_went(text):
    speed = text[text.index('id="speed"') : text.index('id="zero-shot-classes"')]
    assert 'alt="clips a second over steps, speed"' in speed
    assert '<td>evaluation</td><td>15</td>' in speed
    assert 'of 1 command(s)' in speed
    assert 'audio 52.00 ms &lt;a step&gt;' in speed
    assert 'compile seconds over steps' not in text


def test_the_sounds_are_the_recordings(text):
    sounds = re.findall(r'data:audio/mpeg;base64,([^"]+)', text)
    assert len(sounds) >= 30  # at least six queries of five results
    for sound in sounds[:5]:
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
        assert rate == 22050
        assert 0.01 < abs(samples).max() < 1


def test_scores_and_intervals_are_on_the_page(text, run):
    found = json.loads((run / 'evals/zero_shot/2.json').read_text())['metrics']
    low, high = found['top1_ci95']
    assert f'{found["top1"]:.3f}<span class="interval"> [{low:.3f}, {high:.3f}]' in text
    assert 'chance top-1 0.167' in text


def test_without_the_data_the_page_says_so(run, tmp_path):
    moved = tmp_path / 'run'
    (moved / 'evals/retrieval').mkdir(parents=True)
    (moved / 'config.json').write_text((run / 'config.json').read_text())
    content = json.loads((run / 'evals/retrieval/2.json').read_text())
    content['protocol']['options']['data'] = 'folder:/gone?captions=c.csv'
    content['examples'][0]['query'] = '<script>alert(1)</script>'
    (moved / 'evals/retrieval/2.json').write_text(json.dumps(content))
    text = write_report(moved).read_text()
    assert 'not on this machine' in text
    assert '<script>' not in text
    Page(text)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match='no run'):
        write_report(tmp_path)
    (tmp_path / 'config.json').write_text(
        '{"name": "new", "steps": 1, "seed": 0, "data": {"dir": ""}}'
    )
    Page(write_report(tmp_path).read_text())  # nothing evaluated yet
    (tmp_path / 'evals/zero_shot').mkdir(parents=True)
    (tmp_path / 'evals/zero_shot/1.json').write_text('{')
    with pytest.raises(ConfigError, match=r'1\.json is not JSON'):
        write_report(tmp_path)
