"""alm_jax: pretrain, adapt and evaluate audio-language models in JAX.

Importing this package is cheap: it imports neither jax nor numpy. ``alm_jax.load`` is resolved
on first use.
"""

__version__ = '0.1.0'
__all__ = ['load']


def __getattr__(name):
    if name == 'load':
        from alm_jax.load import load  # lazy, so that the import stays cheap

        return load
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
