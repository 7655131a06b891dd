"""The perceiver resampler against that of transformers' IDEFICS, a copy of Flamingo's."""

import jax
import jax.numpy as jnp
import numpy as np
import parity
import torch
import transformers
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from alm_jax.interop import filling, names
from alm_jax.models.perceiver import Perceiver
from alm_jax.training.param_names import flatten_canonical

WIDTH, DEPTH, HEADS, HEAD_DIM, LATENTS = 24, 2, 3, 5, 4


def table():
    """IDEFICS's names of a block, its attention first, then its MLP."""
    attention, mlp, ours = 'blocks.{}.0', 'blocks.{}.1', 'layers/{}'
    rules = [*names.array('latents', 'latents'), *names.norm('layer_norm', 'norm')]
    rules += names.norm(f'{attention}.context_layer_norm', f'{ours}/memory_norm')
    rules += names.norm(f'{attention}.latents_layer_norm', f'{ours}/attn_norm')
    for their, our in {'q': 'query', 'k': 'key', 'v': 'value', 'output': 'out'}.items():
        rules += names.linear(f'{attention}.{their}_proj', f'{ours}/attn/{our}')
    rules += names.norm(f'{mlp}.ln', f'{ours}/mlp_norm')
    rules += names.linear(f'{mlp}.fc', f'{ours}/mlp/up')
    rules += names.linear(f'{mlp}.c_proj', f'{ours}/mlp/down')
    return rules


def test_perceiver():
    config = transformers.IdeficsConfig()
    config.vision_config.embed_dim = WIDTH
    torch.manual_seed(0)
    reference = IdeficsPerceiverResampler(config, WIDTH, DEPTH, HEADS, HEAD_DIM, LATENTS)
    parity.randomise(reference)
    module = Perceiver(None, LATENTS, DEPTH, HEADS, HEAD_DIM, activation='relu')
    x = np.random.default_rng(0).normal(size=(2, 7, WIDTH)).astype(np.float32)
    mask = np.ones((2, 7), bool)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, mask)['params']
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    entries = names.match(table(), tensors, flatten_canonical(shapes))
    params = filling.fill(shapes, tensors, entries)

    def ours(x):
        return module.apply({'params': params}, x, jnp.asarray(mask))[0]

    want = reference(torch.tensor(x))
    parity.check({'latents': (jax.jit(ours)(x), want)})
    target = np.random.default_rng(1).normal(size=want.shape).astype(np.float32)
    parity.check_input_gradient(jax.jit(ours), reference, x, target)
    # A padded clip is as by itself.
    mask[1, 4:] = False
    shorter = reference(torch.tensor(x[1:, :4]))
    parity.check({'padded': (ours(x)[1:], shorter)})
