"""Rotary positions as Hugging Face's config.json describes them, in its older form and today's."""

import math

from alm_jax.interop.family import Config
from alm_jax.models.layers.rotary import Rope

# Our attribute -> key of rope_parameters.
_KEYS = {
    'factor': 'factor',
    'share': 'partial_rotary_factor',
    'low': 'low_freq_factor',
    'high': 'high_freq_factor',
    'fast': 'beta_fast',
    'slow': 'beta_slow',
    'truncate': 'truncate',
}


def rope(config: Config, layer_type: str = 'full_attention') -> Rope:
    """The rotation of the layers of one type.

    Args:
      config: with ``rope_parameters``, maybe one for each layer type, or the older ``rope_scaling``
        and ``rope_theta``; ``max_position_embeddings`` must be there.
      layer_type: 'full_attention' or 'sliding_attention', whose older key is
        ``rope_local_base_freq``.
    """
    given = dict(config.get('rope_scaling') or config.get('rope_parameters') or {})
    theta = config.get('rope_theta', 10_000.0)
    local = layer_type == 'sliding_attention'
    if isinstance(given.get(layer_type), dict):
        given = given[layer_type]
    elif local:
        given, theta = {}, config['rope_local_base_freq']  # rope_scaling is of the other layers
    scaling = given.get('rope_type', given.get('type', 'default'))
    length = config['max_position_embeddings']
    if scaling in ('llama3', 'yarn'):
        length = given.get('original_max_position_embeddings', length)
        length = config.get('original_max_position_embeddings', length)
    options = {name: given.get(key) for name, key in _KEYS.items()}
    if options['share'] is None:
        options['share'] = config.get('partial_rotary_factor')
    return Rope(
        base=given.get('rope_theta', theta),
        scaling=scaling,
        length=length,
        attention_factor=_attention_factor(given),
        **{name: value for name, value in options.items() if value is not None},
    )


def _attention_factor(given: Config) -> float | None:
    """YaRN's, where the config says more than its factor (DeepSeek's two scales)."""
    if given.get('attention_factor') is not None:
        return given['attention_factor']
    if not (given.get('mscale') and given.get('mscale_all_dim')) or given['factor'] <= 1:
        return None
    above, below = (
        0.1 * given[key] * math.log(given['factor']) + 1 for key in ('mscale', 'mscale_all_dim')
    )
    return above / below
