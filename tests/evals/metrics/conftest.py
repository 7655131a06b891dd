"""Captions with references, and the COCO caption evaluation, which our scores are held against."""

import importlib
import importlib.machinery
import importlib.util
import os
import pathlib
import random
import shutil
import subprocess
import sys

import pytest

SENTENCES = (
    'a dog barks twice and then a door slams',
    'the heavy rain is falling on a metal roof',
    'someone plays a rising scale on an old piano',
    'a man speaks while birds are chirping in the background',
    'water drips and an engine starts running',
    'people are laughing and clapping in a large hall',
    'a siren wails in the distance as cars are passing',
    'glass breaks and falls on a hard floor',
)


@pytest.fixture(scope='session')
def captions():
    """(40 candidates, 1 to 4 references each) as lists of words: variations, and an empty one."""
    rng = random.Random(0)

    def varied(words):
        words = list(words)
        for _ in range(rng.randrange(4)):
            place = rng.randrange(len(words))
            change = rng.randrange(4)
            if change == 0 and len(words) > 2:
                del words[place]
            elif change == 1:
                words.insert(place, rng.choice(words))
            elif change == 2:
                words[place] += rng.choice(('s', 'ing', 'ed'))
            else:
                rng.shuffle(words)
        return words

    candidates, references = [[]], [[SENTENCES[0].split()]]
    for _ in range(39):
        own = [varied(rng.choice(SENTENCES).split()) for _ in range(rng.randint(1, 4))]
        references.append(own)
        candidates.append(varied(rng.choice(own)))
    return candidates, references


@pytest.fixture(scope='session')
def coco():
    """Imports a module of pycocoevalcap, which has no __init__ and may lie in a folder apart."""
    path = os.environ.get('ALM_JAX_REFERENCES')
    spec = importlib.util.find_spec('pycocoevalcap')
    if spec is None and path:
        spec = importlib.machinery.PathFinder.find_spec('pycocoevalcap', [path])
    if spec is None:
        pytest.skip('pycocoevalcap is not installed, nor in a folder that ALM_JAX_REFERENCES names')
    sys.modules.setdefault('pycocoevalcap', importlib.util.module_from_spec(spec))
    return lambda name: importlib.import_module(f'pycocoevalcap.{name}')


@pytest.fixture(scope='session')
def java(coco):
    """Runs a Java program of pycocoevalcap: (module beside the jar, *arguments) -> its output."""
    if shutil.which('java') is None:
        pytest.skip('no Java: apt-get install default-jre-headless')

    def run(module, *arguments, text=''):
        folder = pathlib.Path(coco(module).__file__).parent
        done = subprocess.run(
            ['java', *map(str, arguments)], cwd=folder, input=text, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
