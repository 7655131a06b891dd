"""Other people's checkpoints in and out, without torch: one reader a format, one table a family.

``from alm_jax.interop import from_pretrained, save_pretrained``; as a program see
``python -m alm_jax.interop --help``. Importing this package alone imports nothing else, so that
``from_torch`` runs where only torch is.
"""

__all__ = ['from_pretrained', 'save_pretrained']


def __getattr__(name):
    if name in __all__:
        from alm_jax.interop import pretrained

        return getattr(pretrained, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
