"""Models for the tests of decoding: a random decoder, and one whose texts are given."""

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.models.text.decoder import Decoder, Size

VOCABULARY = 50
SIZE = Size(width=16, depth=2, heads=4, kv_heads=2, mlp_width=32, vocabulary=VOCABULARY)


def decoder(size: Size = SIZE, seed: int = 0):
    """(module, parameters) of a random decoder, whose likely tokens are likelier by far."""
    module = Decoder(size)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2), int))['params']
    rng = np.random.default_rng(seed)
    return module, jax.tree.map(
        lambda s: jnp.asarray(0.4 * rng.standard_normal(s.shape), jnp.float32), shapes
    )


class Script:
    """A model that says what its parameters have, whatever it is asked.

    Its parameters are {'script': int32 [b, n]}: the token of each row at each call.

    Attributes:
      compiled: shapes of token ids for which a program was made.
      calls: how often it was asked, once for each batch.
    """

    def __init__(self, vocabulary: int):
        self.vocabulary = vocabulary
        self.compiled: list[tuple[int, ...]] = []
        self.calls = 0

    def apply(self, variables, ids_bt, mask_bt, *, cache, logits_at_bn, method):
        del mask_bt, logits_at_bn, method
        self.compiled.append(ids_bt.shape)
        jax.debug.callback(self._count)
        token = jax.lax.dynamic_index_in_dim(
            variables['params']['script'], cache['index'], axis=1, keepdims=False
        )
        logits = jax.nn.one_hot(token, self.vocabulary)[:, None]
        return {'logits': logits, 'cache': {'index': cache['index'] + 1}}

    def empty_cache(self, batch, length):
        del batch, length
        return {'index': jnp.zeros((), jnp.int32)}

    def one_by_one(self, params):
        return self, params

    def _count(self):
        self.calls += 1
