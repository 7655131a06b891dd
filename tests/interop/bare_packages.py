"""Importing single modules of published packages without what their __init__ does.

Some packages fetch files or load compiled extensions when they are imported. Their modules, which
are the references here, need neither.
"""

import contextlib
import importlib
import importlib.util
import sys

import pytest


def module(name: str, *packages: str):
    """The module ``name``, imported while ``packages`` and its own are bare.

    A bare package is one whose __init__ does not run. Nothing bare is left behind, so that other
    tests see no package that they would not see otherwise. Skips when a package is not installed.
    """
    with _bare((name.partition('.')[0], *packages)):
        return importlib.import_module(name)


@contextlib.contextmanager
def _bare(packages):
    before = set(sys.modules)
    try:
        for package in packages:
            spec = importlib.util.find_spec(package)
            if spec is None:
                pytest.skip(f'{package} is not installed')
            sys.modules[package] = importlib.util.module_from_spec(spec)
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.partition('.')[0] in packages:
                del sys.modules[name]
