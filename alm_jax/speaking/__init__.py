"""What ``alm_jax.caption`` and ``alm_jax.chat`` share: models that write about what they hear."""
