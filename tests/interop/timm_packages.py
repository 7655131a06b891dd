"""Importing timm, and packages that import it, from where ``bare_packages`` finds references.

Their names are taken out of sys.modules again, for transformers behaves otherwise where it sees
them.
"""

import functools
import importlib
import os
import pathlib
import sys

import torch
from bare_packages import _find

PACKAGES = ('timm', 'torchvision', 'hear21passt')
_kept = {}  # their modules, between two calls
_libraries = []


@functools.cache
def module(name: str):
    """The module ``name``; skips when its package or timm or torchvision is not there."""
    for package in ('timm', 'torchvision', name.partition('.')[0]):
        _find(package)
    _declare_operators()
    folder, known = os.environ.get('ALM_JAX_REFERENCES'), _modules()
    sys.modules.update(_kept)
    sys.path += [folder] if folder else []
    try:
        found = importlib.import_module(name)
    finally:
        sys.path[:] = [place for place in sys.path if place != folder]
        _kept.update(_modules())
        for each in set(_kept) - set(known):
            del sys.modules[each]
    return found


def _modules():
    return {n: m for n, m in sys.modules.items() if n.partition('.')[0] in PACKAGES}


@functools.cache
def _declare_operators():
    """Of torchvision, which on PyPI is built for CUDA and cannot load them beside torch for CPUs.

    Without them it cannot be imported; no model here uses them.
    """
    version = pathlib.Path(_find('torchvision').origin).with_name('version.py').read_text()
    if torch.version.cuda or '+cu' not in version:
        return
    library = torch.library.Library('torchvision', 'DEF')
    for name in ('nms', 'qnms'):
        library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _libraries.append(library)  # its operators go with it
