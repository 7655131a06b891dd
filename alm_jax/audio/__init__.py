"""Waveforms in, features out.

Host modules (numpy): presets, decode, resample, windows, log_mel. Device modules (jnp, inside jit):
log_mel_device, augment. This file imports none of them, so that data workers never load jax.
"""
