"""What the TPU compiler makes of collectives: chains of fusions, and fusions that keep a slice."""

import pytest

from alm_jax.training.perf import hlo_bytes, hlo_costs, hlo_text

GATHER = (
    "%ag = f32[64,512]{1,0} all-gather(%p), channel_id=3, replica_groups=mesh['x'=2,'y'=4], "
    'device_ids=([4,2]T(1,0)) {\'y\'}, dimensions={1}, frontend_attributes={chain_id="7"}'
)
MOVING = 'f32[64,128], f32[64,512], u32[]'
STEP = 'f32[64,64], f32[64,128], f32[64,512], f32[64,512]'
TEXT = f"""HloModule chains, is_scheduled=true, num_partitions=8

%first (p: f32[64,128]) -> ({MOVING}) {{
  %p = f32[64,128]{{1,0}} parameter(0)
  {GATHER}
  ROOT %s = ({MOVING}) custom-call(%ag), custom_call_target="AsyncCollectiveStart"
}}

%onwards (p: f32[64,128], g: f32[64,512], u: u32[], x: f32[64,64]) -> ({STEP}) {{
  %p = f32[64,128]{{1,0}} parameter(0)
  %g = f32[64,512]{{1,0}} parameter(1)
  %u = u32[] parameter(2)
  %x = f32[64,64]{{1,0}} parameter(3)
  %y = f32[64,64]{{1,0}} dot(%x, %x), lhs_contracting_dims={{1}}
  {GATHER}
  ROOT %t = ({STEP}) tuple(%y, %p, %g, %ag)
}}

%last (p: f32[64,128], g: f32[64,512], u: u32[]) -> f32[64,512] {{
  %p = f32[64,128]{{1,0}} parameter(0)
  %g = f32[64,512]{{1,0}} parameter(1)
  %u = u32[] parameter(2)
  {GATHER}
  ROOT %d = f32[64,512] custom-call(%p, %g, %ag, %u), custom_call_target="AsyncCollectiveDone"
}}

%all-reduce-scatter (x: f32[64,64]) -> f32[8,64] {{
  %x = f32[64,64]{{1,0}} parameter(0)
  %sum = f32[64,64]{{1,0}} all-reduce(%x), replica_groups={{{{0,1,2,3,4,5,6,7}}}}, to_apply=%add
  %i = u32[] partition-id()
  ROOT %mine = f32[8,64]{{1,0}} dynamic-slice(%sum, %i, %i), dynamic_slice_sizes={{8,64}}
}}

ENTRY %main (a: f32[64,128], x: f32[64,64]) -> f32[64,512] {{
  %a = f32[64,128]{{1,0}} parameter(0)
  %x = f32[64,64]{{1,0}} parameter(1)
  %start = ({MOVING}) fusion(%a), kind=kCustom, calls=%first
  %a1 = f32[64,128] get-tuple-element(%start), index=0
  %g1 = f32[64,512] get-tuple-element(%start), index=1
  %u1 = u32[] get-tuple-element(%start), index=2
  %step = ({STEP}) fusion(%a1, %g1, %u1, %x), kind=kOutput, calls=%onwards
  %a2 = f32[64,128] get-tuple-element(%step), index=1
  %g2 = f32[64,512] get-tuple-element(%step), index=2
  %done = f32[64,512] fusion(%a2, %g2, %u1), kind=kCustom, calls=%last
  %slice = f32[8,64] fusion(%x), kind=kCustom, calls=%all-reduce-scatter
  ROOT %end = f32[64,512]{{1,0}} copy(%done)
}}
"""


def test_a_chain_is_one_gather_and_a_sum_of_which_a_slice_is_kept_a_scatter():
    found = hlo_costs.costs(TEXT)
    assert found.transfers == {
        hlo_costs.Transfer('all-gather', 4, overlapped=True): [1, 64 * 512 * 4],
        hlo_costs.Transfer('reduce-scatter', 8, overlapped=False): [1, 64 * 64 * 4],
    }
    assert not found.uncounted
    assert found.flops == 2 * 64**3


def test_nothing_is_hidden_by_a_chain_that_ends_where_it_starts():
    step = TEXT.index('  %step ')
    text = TEXT[:step] + TEXT[TEXT.index('  %done ') :]
    (gather, _) = hlo_costs.costs(text.replace('(%a2, %g2', '(%a1, %g1')).transfers
    assert gather == hlo_costs.Transfer('all-gather', 4, overlapped=False)


@pytest.mark.parametrize(
    ('name', 'moved'),
    [
        ('start', 64 * 128 * 4 + 64 * 512 * 4),
        ('step', 2 * 64 * 64 * 4),  # of its product alone
        ('done', 0),
    ],
)
def test_what_is_gathered_moves_once(name, moved):
    module = hlo_text.parse(TEXT)
    entry = module.computations[module.entry]
    assert hlo_bytes.moved(module, entry, entry.by_name[name]) == pytest.approx(moved, abs=8)
