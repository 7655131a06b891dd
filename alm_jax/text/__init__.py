"""Text in, token ids out: tokenizers and prompt templates. Nothing here imports jax."""
