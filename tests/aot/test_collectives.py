"""Collectives of programs written by hand, and of one that XLA wrote for eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ncfair_jax.aot import hlo
from ncfair_jax.aot.collectives import Collective, collectives, group_of
from tests.aot.test_hlo import LOOP

ENTRY = "\nENTRY %main (a: f32[100]) -> f32[100] {{\n  %a = f32[100]{{0}} parameter(0)\n  {}\n}}\n"
CONFIG = 'backend_config={"async_collective_fusion_config":{"flag_start":"FLAG","flag_end":"8"}}'
ALL_GATHER = "f32[400]{0} all-gather(%PARAMETER), channel_id=9, replica_groups={{0,1,2,3}}, dimensions={0}, "


def found(*lines: str, before: str = "") -> list[Collective]:
    return collectives(hlo.parse(before + ENTRY.format("\n  ".join(lines))))


def fusion(name: str, flag: str) -> str:
    """A computation with a part of one all-gather."""
    gather = ALL_GATHER.replace("PARAMETER", f"p.{name}") + CONFIG.replace("FLAG", flag)
    lines = f"%p.{name} = f32[100]{{0}} parameter(0)", f"ROOT %g.{name} = {gather}"
    return f"%{name} (p.{name}: f32[100]) -> f32[400] {{\n  {lines[0]}\n  {lines[1]}\n}}\n"


def test_an_all_reduce_of_several_arrays_counts_all_their_bytes():
    line = "ROOT %r = (f32[100]{0}, f32[100]{0:S(1)}) all-reduce(%a, %a), replica_groups={{0,1},{2,3}}, to_apply=%add"
    assert found(line) == [Collective("all-reduce", 800, (0, 1), 1, False)]


@pytest.mark.parametrize(
    ("start", "done", "kind", "size"),
    [
        ("f32[100] all-reduce-start(%a)", "f32[100] all-reduce-done(%s)", "all-reduce", 400),
        ("(f32[100], f32[400]) all-gather-start(%a)", "f32[400] all-gather-done(%s)", "all-gather", 1600),
        (
            "(f32[100], f32[100]) collective-permute-start(%a)",
            "f32[100] collective-permute-done(%s)",
            "collective-permute",
            400,
        ),
    ],
)
def test_a_pair_counts_once_and_can_overlap(start, done, kind, size):
    lines = f"%s = {start}, replica_groups={{{{0,1,2,3}}}}", f"ROOT %d = {done}"
    assert found(*lines) == [Collective(kind, size, (0, 1, 2, 3), 1, True)]


def test_a_reduce_scatter_counts_what_goes_in():
    line = "ROOT %r = f32[25]{0} reduce-scatter(%a), replica_groups=[1,4]<=[4], dimensions={0}, to_apply=%add"
    assert found(line) == [Collective("reduce-scatter", 400, (0, 1, 2, 3), 1, False)]


def test_one_that_is_spread_over_fusions_counts_once_and_can_overlap():
    names = {"first": "-1", "step": "2", "last": "2"}
    before = "".join(fusion(name, flag) for name, flag in names.items())
    lines = [f"%f.{name} = f32[400]{{0}} fusion(%a), kind=kCustom, calls=%{name}" for name in names]
    assert found(*lines, before=before) == [Collective("all-gather", 1600, (0, 1, 2, 3), 1, True)]


def test_an_all_reduce_of_which_a_fusion_keeps_a_slice_is_a_reduce_scatter():
    before = """
%scatter (p: f32[100]) -> f32[25] {
  %p = f32[100]{0} parameter(0)
  %r = f32[100]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %i = s32[] partition-id()
  ROOT %s = f32[25]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={25}
}
"""
    lines = [f"%f.{i} = f32[25]{{0}} fusion(%a), kind=kCustom, calls=%scatter" for i in range(2)]
    assert found(*lines, before=before) == [Collective("reduce-scatter", 400, (0, 1, 2, 3), 1, False)] * 2


def test_in_a_loop_it_runs_as_often_as_the_loop():
    line = "%next = s32[] all-reduce(%i), replica_groups={}, to_apply=%add"
    program = hlo.parse(LOOP.replace("%next = s32[] add(%i, %one)", line))
    assert collectives(program) == [Collective("all-reduce", 4, (), 7, False)]


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2},{1,3}}", (0, 2)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8))),
        ("replica_groups=mesh['a'=8] {'a':(2)4}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", (0, 4)),
        ("source_target_pairs={{0,1},{1,0}}", (0, 1)),
        ("replica_groups={}", ()),
    ],
)
def test_groups_in_each_notation(text, group):
    assert group_of(f", {text}, use_global_device_ids=true") == group


def test_a_program_that_xla_wrote_for_eight_devices():
    """The gradient of a replicated 8x4 matrix whose rows of data are split eight ways: one all-reduce of it in each step."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, P())

    def loss(weight, steps):
        return jnp.sum(jax.lax.map(lambda x: jnp.sum(jnp.tanh(x @ weight)), steps))

    shapes = (
        jax.ShapeDtypeStruct((8, 4), np.float32, sharding=everywhere),
        jax.ShapeDtypeStruct((3, 16, 8), np.float32, sharding=NamedSharding(mesh, P(None, "data"))),
    )
    compiled = jax.jit(jax.grad(loss), out_shardings=everywhere).lower(*shapes).compile()
    every = collectives(hlo.parse(compiled.as_text()))
    gradient = [each for each in every if each.bytes == 8 * 4 * 4]
    assert gradient and all(each.kind == "all-reduce" and each.group in ((), tuple(range(8))) for each in gradient)
    assert sum(each.times for each in gradient) in (1, 3)  # after the loop, or in each of its rounds
