"""Operations and bytes of programs written by hand."""

import numpy as np
import pytest

from ncfair_jax.aot import costs
from ncfair_jax.aot.hlo import instruction, parse


def convolution(image: str, kernel: str, result: str, attributes: str) -> int:
    computation = {
        "a": instruction("a", f"{image} parameter(0)", False),
        "b": instruction("b", f"{kernel} parameter(1)", False),
    }
    return costs.convolution_operations(
        instruction("c", f"{result} convolution(%a, %b), {attributes}", True), computation
    )


def test_a_plain_product():
    assert convolution("bf16[128,256]", "bf16[256,64]", "bf16[128,64]", "dim_labels=bf_io->bf") == 2 * 128 * 256 * 64


def test_a_product_over_two_axes_with_a_window_of_one():
    found = convolution("bf16[8,128,32]", "bf16[32,64,1]", "bf16[8,128,64]", "window={size=1}, dim_labels=0bf_io0->0bf")
    assert found == 2 * 8 * 128 * 32 * 64


def test_batch_axes_as_dilated_windows_are_not_squared():
    """Attention scores of 8 rows and 2 heads as the TPU compiler writes them: a batched product of [128,16] and [16,128]."""
    attributes = "window={size=8x2 stride=7x1 lhs_dilate=8x2}, dim_labels=01bf_01oi->01bf"
    found = convolution("bf16[8,2,128,16]", "bf16[8,2,128,16]", "f32[8,2,128,128]", attributes)
    assert found == 8 * 2 * 2 * 128 * 16 * 128


def test_padding_is_no_operand():
    """A kernel of 3 at every place of 5, padded: 5 meetings in the middle, 4 at each side."""
    found = convolution("f32[1,5,1]", "f32[3,1,1]", "f32[1,5,1]", "window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f")
    assert found == 2 * 13


@pytest.mark.parametrize("settings", [(1, 0, 1, 1), (2, 1, 1, 1), (1, 3, 2, 1), (3, 2, 4, 2), (7, 0, 8, 1)])
def test_meetings_are_those_of_a_plain_loop(settings):
    stride, padding, image_dilation, kernel_dilation = settings
    image, kernel, result = 8, 5, 9
    spread = np.zeros((image - 1) * image_dilation + 1, bool)
    spread[::image_dilation] = True
    count = 0
    for place in range(result):
        for tap in range(kernel):
            at = place * stride + tap * kernel_dilation - padding
            count += 0 <= at < len(spread) and bool(spread[at])
    assert costs.meetings(image, kernel, result, settings) == count


PROGRAM = """
%slice (s.0: f32[10,100], s.1: s32[]) -> f32[100] {
  %s.0 = f32[10,100]{1,0} parameter(0)
  %s.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %picked = f32[1,100]{1,0} dynamic-slice(%s.0, %s.1, %zero), dynamic_slice_sizes={1,100}
  ROOT %flat = f32[100]{0} bitcast(%picked)
}

%place (u.0: f32[10,100], u.1: f32[1,100], u.2: s32[]) -> f32[10,100] {
  %u.0 = f32[10,100]{1,0} parameter(0)
  %u.1 = f32[1,100]{1,0} parameter(1)
  %u.2 = s32[] parameter(2)
  %none = s32[] constant(0)
  ROOT %placed = f32[10,100]{1,0} dynamic-update-slice(%u.0, %u.1, %u.2, %none)
}

%whole (w.0: f32[10,100]) -> f32[100] {
  %w.0 = f32[10,100]{1,0} parameter(0)
  %nothing = f32[] constant(0)
  ROOT %sum = f32[100]{0} reduce(%w.0, %nothing), dimensions={0}, to_apply=%add
}

ENTRY %main (a: f32[10,100], b: f32[1,100], i: s32[]) -> f32[100] {
  %a = f32[10,100]{1,0} parameter(0)
  %b = f32[1,100]{1,0} parameter(1)
  %i = s32[]{:S(6)} parameter(2)
  LINE
}
"""
PLACED = "ROOT %x = f32[10,100]{1,0} fusion(%a, %b, %i), kind=kLoop, calls=%place"


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("ROOT %x = f32[100]{0} fusion(%a, %i), kind=kLoop, calls=%slice", 400 + 400),
        (PLACED, 400 + 400),
        ("ROOT %x = f32[100]{0} fusion(%a), kind=kLoop, calls=%whole", 4000 + 400),
        ("ROOT %x = f32[100]{0:S(1)} fusion(%a), kind=kLoop, calls=%whole", 4000),
        ("ROOT %x = f32[10,100]{1,0:S(1)} copy(%a)", 4000),
        ("ROOT %x = f32[10,100]{1,0} negate(%a)", 8000),
        ("%y = (f32[10,100]{1,0:S(1)}, f32[10,100], u32[]{:S(2)}) copy-start(%a)\n"
         "  ROOT %x = f32[10,100]{1,0:S(1)} copy-done(%y)", 4000),
        ("ROOT %x = (f32[10,100], s32[]) tuple(%a, %i)", 0),
    ],
    ids=["a slice", "in place", "all of it", "to fast memory", "copied there", "both ways", "copied meanwhile", "no work"],
)  # fmt: skip
def test_bytes_are_those_of_the_large_memory(line, size):
    assert costs.memory_bytes(parse(PROGRAM.replace("LINE", line))) == size
