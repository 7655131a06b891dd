"""Attention kernels count as the attention that they are."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest

from alm_jax.models.layers import attention_kernels, attention_plain
from alm_jax.training.perf import hlo_costs, model_flops

B, H, T, S, D = 2, 3, 512, 1024, 64
BLOCKS = {'block_q': 256, 'block_kv': 256, 'block_q_dq': 256, 'block_kv_dq': 256}
BLOCKS |= {'block_q_dkv': 256, 'block_kv_dkv': 1024}


def program(phase, fused):
    """As the compiler prints it: the metadata of a kernel goes over three lines."""
    blocks = json.dumps(BLOCKS | {'use_fused_bwd_kernel': fused}).replace('"', '\\"')
    queries, keys = 'bf16[2,3,512,64]{3,2,1,0}', 'bf16[2,3,1024,64]{3,2,1,0}'
    return '\n'.join(
        [
            'HloModule attention',
            '',
            'ENTRY %main (q: bf16[2,3,512,64], k: bf16[2,3,1024,64]) -> bf16[2,3,512,64] {',
            '  %mask = s8[1,2,4]{2,1,0} constant({...})',
            f'  %q = {queries} parameter(0)',
            f'  %k = {keys} parameter(1)',
            f'  %splash_mha_{phase}.1 = ({queries}) custom-call(%mask, %q, %k, %k), '
            'custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={',
            f'"xprof_metadata":"{blocks}"',
            f'}}}}, metadata={{op_name="splash_mha_{phase}/pallas_call"}}',
            f'  ROOT %out = {queries} get-tuple-element(%splash_mha_{phase}.1), index=0',
            '}',
        ]
    )


@pytest.mark.parametrize(
    ('phase', 'fused', 'products', 'again'),
    [
        ('fwd', False, 2, 2 * S),  # two blocks of queries, each through all keys and values
        ('dq', False, 3, 2 * S),
        ('dkv', False, 4, 0),  # one block of keys
        ('dkv', True, 5, 0),
    ],
)
def test_a_kernel_of_tpus_by_its_name_and_blocks(phase, fused, products, again):
    costs = hlo_costs.costs(program(phase, fused))
    assert costs.flops == products * 2 * B * H * T * S * D
    assert not costs.uncounted
    mask, rows = 8, T + 2 * S + T + again  # queries, keys, values, result, and those read again
    assert costs.bytes == mask + rows * B * H * D * 2


def test_the_model_needs_what_the_plain_form_computes():
    query = jax.ShapeDtypeStruct((B, 300, 4, 64), jnp.float32)

    def loss(attend, trained, frozen):
        return attend(trained, trained, trained).sum()

    def flops(attend):
        return model_flops.count(functools.partial(loss, attend), query, {})

    plain = functools.partial(
        attention_plain.attend, bias=None, softcap=None, scale=None, causal=False, window=None
    )
    assert flops(attention_kernels.attend) == flops(plain)
    assert flops(plain).model == 3 * 4 * B * 4 * 300 * 300 * 64
