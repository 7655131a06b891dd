"""Objects as loader workers get them."""

import contextlib
import os
import pkgutil
import subprocess
import sys

from alm_jax.data import recipes


def travelled(value):
    """The object that the recipe of ``value`` makes."""
    with written(value) as recipe:
        callables = [pkgutil.resolve_name(name) for name in recipe.callables]
        return recipes.read(recipe.buffer, recipe.size, callables)


def size(value):
    """Bytes of a recipe."""
    with written(value) as recipe:
        return os.fstat(recipe.buffer.fd).st_size


def printed_elsewhere(value, statements):
    """What another process prints that runs ``statements`` with ``value``."""
    with written(value) as recipe:
        program = (
            f'import sys; sys.path[:] = {sys.path!r}\n'
            f'import {", ".join([*recipe.modules, "alm_jax.data.recipes"])}\n'
            'from alm_jax.data.shared_memory import Buffer\n'
            f'callables = [{", ".join(recipe.callables)}]\n'
            f'buffer = Buffer({recipe.buffer.fd})\n'
            f'value = alm_jax.data.recipes.read(buffer, {recipe.size}, callables)\n' + statements
        )
        done = subprocess.run(
            [sys.executable, '-c', program],
            pass_fds=[recipe.buffer.fd],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
    return done.stdout


@contextlib.contextmanager
def written(value):
    """The recipe, whose memory is freed."""
    recipe = recipes.write(value)
    with contextlib.closing(recipe.buffer):
        yield recipe
