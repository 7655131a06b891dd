"""Class names in prompt templates, ensembled."""

from collections.abc import Callable, Sequence

import numpy as np

from alm_jax.text import templates


def class_embeddings(
    embed_text: Callable[[Sequence[str]], np.ndarray], names: Sequence[str], kind: str
) -> np.ndarray:
    """One unit-norm embedding a name: float64 [names, d].

    The mean of the unit-norm embeddings of the name in every template of ``kind``, normalised again
    (prompt ensembling in embedding space: Radford et al. 2021, section 3.1.4).
    """
    prompts = [prompt for name in names for prompt in templates.prompts(name, kind)]
    embedded = embed_text(prompts).astype(np.float64)
    mean = embedded.reshape(len(names), -1, embedded.shape[-1]).mean(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)
