"""Texts of programs, taken apart: written by hand, and one that XLA wrote for a CPU."""

import jax
import jax.numpy as jnp
import pytest

from ncfair_jax.aot import costs, hlo
from ncfair_jax.aot.hlo import Buffer

LOOP = """
HloModule loop

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8]{0:T(128)S(1)} get-tuple-element(%p), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %out = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) tuple(%next, %x)
}

%condition (p.1: (s32[], f32[8])) -> pred[] {
  %p.1 = (s32[], f32[8]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %bound = s32[] constant(7)
  ROOT %less = pred[] compare(%i.1, %bound), direction=LT
}

ENTRY %main (a: f32[8]) -> (s32[], f32[8]) {
  %a = f32[8]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8]{0}) tuple(%zero, %a)
  ROOT %loop = (s32[], f32[8]{0}) while(%start), condition=%condition, body=%body
}
"""


def test_an_instruction_has_its_parts():
    line = "(bf16[2,16]{1,0:T(2,128)(2,1)S(1)}, /*index=1*/s32[]) fusion(%a, %b.1), kind=kLoop, calls=%inner.2"
    found = hlo.instruction("x", line, False)
    assert found.buffers == (Buffer("bf16", (2, 16), 1), Buffer("s32", (), 0))
    assert (found.opcode, found.operands, found.called("calls")) == ("fusion", ("a", "b.1"), "inner.2")
    assert found.called("body") == ""


@pytest.mark.parametrize(
    ("text", "size"),
    [("f32[3,5]{1,0}", 60), ("bf16[7]", 14), ("pred[9]", 9), ("s4[3]{0}", 2), ("f8e4m3fn[4]", 4), ("u32[]", 4)],
)
def test_bytes_of_a_buffer(text, size):
    (buffer,) = hlo.buffers(text)
    assert buffer.bytes == size


def test_what_is_in_a_loop_runs_as_often_as_the_counter_is_below_its_bound():
    program = hlo.parse(LOOP)
    assert program.entry == "main" and hlo.root_of(program.computations["body"]).name == "out"
    assert list(hlo.runs(program)) == [("main", 1), ("body", 7)]
    assert hlo.unknown_loops(program) == 0


def test_the_compilers_note_on_a_loop_comes_first():
    note = 'body=%body, backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0","step":"1"}}'
    assert list(hlo.runs(hlo.parse(LOOP.replace("body=%body", note)))) == [("main", 1), ("body", 5)]


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    program = hlo.parse(LOOP.replace("direction=LT", "direction=NE"))
    assert list(hlo.runs(program)) == [("main", 1), ("body", 1)]
    assert hlo.unknown_loops(program) == 1


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule nothing")


def test_operations_of_a_program_that_xla_wrote_count_loops_whole():
    """Five products of 4x8 and 8x8 in a loop, and their two gradients each; XLA itself would count the loop's body once."""

    def loss(weights, x):
        return jnp.sum(jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0])

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(jnp.ones((5, 8, 8)), jnp.ones((4, 8))).compile()
    program = hlo.parse(compiled.as_text())
    assert costs.operations(program) == 3 * 5 * 2 * 4 * 8 * 8
