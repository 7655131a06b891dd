"""One page about a dataset: ``python -m alm_jax.data inspect NAME --out page.html``."""
