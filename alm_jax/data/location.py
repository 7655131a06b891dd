"""Where prepared data, downloads and packaged weights live."""

import os
import pathlib


def data_dir(explicit: str = '') -> pathlib.Path:
    """``explicit``, else $ALM_JAX_DATA, else ~/.cache/alm_jax. Not created here."""
    chosen = explicit or os.environ.get('ALM_JAX_DATA') or '~/.cache/alm_jax'
    return pathlib.Path(chosen).expanduser().resolve()
