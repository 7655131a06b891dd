"""Long short-term memory (Hochreiter and Schmidhuber 1997), layer upon layer."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.dense import Dense

LAYERS = 'layers'


class LstmLayer(nn.Module):
    """One layer as wide as its input, forward in time, from a state of zeros.

    Parameters, float32, gates in torch's order (input, forget, cell, output): Dense ``input``
    [d, 4 d], ``recurrent_kernel`` [d, 4 d] and ``recurrent_bias`` [4 d], torch's second bias.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, d] -> ([b, t, d] in ``dtype``, None), the form that nn.scan carries."""
        width = x_btd.shape[-1]
        gates = Dense(4 * width, dtype=self.dtype, name='input')(x_btd)
        init = nn.initializers.orthogonal()
        kernel = self.param('recurrent_kernel', init, (width, 4 * width)).astype(self.dtype)
        bias = self.param('recurrent_bias', nn.initializers.zeros, (4 * width,))

        def step(state, gates_bd):
            hidden, cell = state
            gates_bd = (gates_bd + hidden @ kernel).astype(jnp.float32)
            enter, forget, new, leave = jnp.split(gates_bd, 4, axis=-1)
            cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
            hidden = (jax.nn.sigmoid(leave) * jnp.tanh(cell)).astype(self.dtype)
            return (hidden, cell), hidden

        start = jnp.zeros((x_btd.shape[0], width))
        gates_tbd = jnp.swapaxes(gates + bias.astype(self.dtype), 0, 1)
        _, y_tbd = jax.lax.scan(step, (start.astype(self.dtype), start), gates_tbd)
        return jnp.swapaxes(y_tbd, 0, 1), None


def lstm_stack(depth: int, dtype: DTypeLike = jnp.float32):
    """``depth`` LstmLayers as one scanned module named 'layers': x_btd -> (y_btd, None)."""
    scanned = nn.scan(
        LstmLayer, variable_axes={'params': 0}, split_rngs={'params': True}, length=depth
    )
    return scanned(dtype, name=LAYERS)
