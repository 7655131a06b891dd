"""Importing single modules of published packages without what their __init__ does.

Some packages fetch files or load compiled extensions when they are imported, or ask for versions of
others that the tests cannot have. Their modules, which are the references here, need none of it.

The packages may be installed, or lie in the folder that ALM_JAX_REFERENCES names, where other
libraries do not see them (transformers imports torchaudio where it finds it). launch/test.sh makes
that folder, so there nothing is skipped:

  pip install --no-deps --target "$ALM_JAX_REFERENCES" -r tests/interop/references.txt
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys

import pytest


def module(name: str, *packages: str):
    """The module ``name``, imported while ``packages`` and its own are bare.

    A bare package is one whose __init__ does not run. Nothing bare is left behind, so that other
    tests see no package that they would not see otherwise. Skips when a package is not there.
    """
    with _bare((name.partition('.')[0], *packages)):
        return importlib.import_module(name)


def whole(name: str, *needed: str):
    """The package ``name`` with its __init__, after the packages that it needs. Skips likewise."""
    for package in (*needed, name):
        if package not in sys.modules:
            spec = _find(package)
            sys.modules[package] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[package])
    return sys.modules[name]


@contextlib.contextmanager
def _bare(packages):
    before = set(sys.modules)
    try:
        for package in packages:
            sys.modules[package] = importlib.util.module_from_spec(_find(package))
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.partition('.')[0] in packages:
                del sys.modules[name]


def _find(package):
    folder = os.environ.get('ALM_JAX_REFERENCES')
    spec = importlib.util.find_spec(package)
    if spec is None and folder:
        spec = importlib.machinery.PathFinder.find_spec(package, [folder])
    if spec is None and folder:
        raise ModuleNotFoundError(f'{package} is not in ALM_JAX_REFERENCES, {folder}.')
    if spec is None:
        pytest.skip(f'{package} is not installed, and ALM_JAX_REFERENCES names no folder')
    return spec
