"""Published language models by name: what ``Decoder`` is called with for each."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers.attention import PROJECTIONS
from alm_jax.models.layers.dense import LowRank
from alm_jax.models.layers.rotary import Rope
from alm_jax.models.text.decoder import Decoder, Size

_QWEN = {'attention_biases': PROJECTIONS[:3]}
_VICUNA = {'vocabulary': 32_000, 'head': 'own'}
VARIANTS = {
    # Llama's form and SmolLM2's vocabulary, whose tokenizer comes with packaged:smollm2.
    'mu': Size(64, 2, 4, 128, 49_152, kv_heads=2),
    'gpt2': Size(
        768,
        12,
        12,
        3072,
        50_257,
        norm='layer',
        norm_epsilon=1e-5,
        activation='gelu_tanh',
        gated=False,
        mlp_bias=True,
        attention_biases=PROJECTIONS,
        rope=None,
        positions=1024,
    ),
    'smollm2_135m': Size(
        576, 30, 9, 1536, 49_152, kv_heads=3, norm_epsilon=1e-5, rope=Rope(base=100_000.0)
    ),
    # Llama 1 fine-tuned: of LTU, SALMONN (https://lmsys.org/blog/2023-03-30-vicuna).
    'vicuna_7b': Size(4096, 32, 32, 11_008, **_VICUNA),
    'vicuna_13b': Size(5120, 40, 40, 13_824, **_VICUNA),
    # Qwen-7B as Qwen2-Audio has it, whose config.json (Qwen/Qwen2-Audio-7B) this is.
    'qwen_7b': Size(4096, 32, 32, 11_008, 156_032, norm_epsilon=1e-5, head='own', **_QWEN),
    # https://arxiv.org/abs/2412.15115 and the models' config.json.
    'qwen2_5_3b': Size(2048, 36, 16, 11_008, 151_936, kv_heads=2, rope=Rope(1e6), **_QWEN),
    'qwen2_5_7b': Size(
        3584, 28, 28, 18_944, 152_064, kv_heads=4, rope=Rope(1e6), head='own', **_QWEN
    ),
}


def build_decoder(
    options: Mapping[str, Any], dtype: DTypeLike = jnp.float32, remat: str = 'none'
) -> Decoder:
    """The decoder of ``config.model.text``.

    Args:
      options: 'variant', a key of VARIANTS; 'lora', {'rank', 'alpha', 'targets'}, low-rank terms of
        the attention's projections named in targets (default query and value), which start as
        nothing; Decoder's ``dropout`` and ``remat``; any attribute of Size, which replaces the
        variant's. 'name' is ignored.
      dtype: compute dtype.
      remat: unless the options have their own.

    Raises:
      ConfigError: an unknown variant, option or target, naming the nearest.
    """
    where = 'model.text'
    options = {'remat': remat, **options}
    of_decoder = {key: options.pop(key) for key in ('dropout', 'remat') if key in options}
    name, lora = options.pop('variant', 'smollm2_135m'), options.pop('lora', None)
    size = config_lib.choose(VARIANTS, name, where=f'{where}.variant')
    fields = {**vars(size), **options}
    fields['lora'] = config_lib.call_with(_low_rank, lora, where=f'{where}.lora') if lora else None
    return Decoder(config_lib.call_with(Size, fields, where=where), **of_decoder, dtype=dtype)


def _low_rank(rank=8, alpha=16.0, targets=('query', 'value')) -> LowRank:
    for target in targets:
        config_lib.choose(dict.fromkeys(PROJECTIONS), target, where='model.text.lora.targets')
    return LowRank(rank, alpha / rank, tuple(targets))
