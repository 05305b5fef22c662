"""Times and weak scaling by numbers that were worked out by hand."""

import dataclasses

import pytest

from ncfair_jax.aot.chips import CHIPS
from ncfair_jax.aot.collectives import Collective
from ncfair_jax.aot.roofline import Exchange, exchange_seconds, links_of, seconds, weak_scaling

# 1 Gop/s, 1 GB/s of memory, links of 1 MB/s: small numbers in milliseconds.
CHIP = dataclasses.replace(CHIPS["v5e"], matmul_rate=1e9, memory_rate=1e9, link_rate=1e6)


def exchange(kind: str, size: int, chips: int, links: int, *, times: int = 1, hidden: bool = False, grows: bool = True):
    return Exchange(Collective(kind, size, (), times, hidden), chips, links, grows)


@pytest.mark.parametrize(
    ("kind", "milliseconds"),
    [
        ("all-reduce", 2 * 8 * 3 / 4 / 2),  # 8 kB twice round a ring of 4, over two links
        ("all-gather", 8 * 3 / 4 / 2),
        ("reduce-scatter", 8 * 3 / 4 / 2),
        ("all-to-all", 8 * 3 / 4 / 2),
        ("collective-permute", 8),
    ],
)
def test_a_ring_of_four(kind, milliseconds):
    assert 1e3 * exchange_seconds(exchange(kind, 8000, 4, 2), CHIP) == pytest.approx(milliseconds)
    assert 1e3 * exchange_seconds(exchange(kind, 8000, 4, 2, times=5), CHIP) == pytest.approx(5 * milliseconds)


def test_one_chip_exchanges_nothing():
    assert exchange_seconds(exchange("all-reduce", 8000, 1, 0), CHIP) == 0


def test_an_all_to_all_among_sixteen_goes_four_links_on_the_mean():
    one = exchange_seconds(exchange("all-gather", 8000, 16, 2), CHIP)
    assert exchange_seconds(exchange("all-to-all", 8000, 16, 2), CHIP) == pytest.approx(4 * one)


@pytest.mark.parametrize(
    ("chip", "sides", "shape", "links"),
    [
        ("v5e", (4, 4), (4, 4), 2),  # neither side closes
        ("v5e", (16, 16), (16, 16), 4),
        ("v5e", (16, 1), (16, 16), 2),
        ("v5e", (4, 16), (16, 16), 3),
        ("v5p", (4, 4, 4), (4, 4, 4), 6),
        ("v5p", (2, 2, 1), (2, 2, 1), 2),
        ("v5e", (1, 1), (4, 4), 0),
    ],
)
def test_links_of_a_group(chip, sides, shape, links):
    assert links_of(sides, shape, CHIPS[chip]) == links


def test_a_step_takes_the_longer_of_arithmetic_and_memory_and_what_is_not_hidden():
    exposed = exchange("all-gather", 8000, 4, 2)  # 3 ms
    hidden = exchange("all-gather", 16000, 4, 2, hidden=True)  # 6 ms
    found = seconds(5e6, 2e6, [exposed, hidden], CHIP)
    assert found == pytest.approx((5e-3, 2e-3, 9e-3, 3e-3))
    assert found.alone == pytest.approx(5e-3)
    assert found.step == pytest.approx(5e-3 + 3e-3 + (6e-3 - 5e-3))
    assert seconds(7e6, 2e6, [exposed, hidden], CHIP).step == pytest.approx(10e-3)  # 6 ms hide behind 7 ms


def test_weak_scaling_of_one_all_reduce():
    """10 ms of work; 1 kB to reduce over 4 chips of a 2x2 slice."""
    found = weak_scaling(10e6, 0, [exchange("all-reduce", 1000, 4, 2)], CHIP, 4)
    assert found is not None and list(found) == [1, 4, 16, 64, 256]
    assert found[1] == 1
    assert found[4] == pytest.approx(10 / (10 + 2 * 3 / 4 / 2))
    assert found[64] == pytest.approx(10 / (10 + 2 * 63 / 64 / 2))
    assert found[256] == pytest.approx(10 / (10 + 2 * 255 / 256 / 4))  # the sides of 16x16 close to rings


def test_groups_that_do_not_grow_stay_as_they_are():
    fixed = exchange("all-gather", 8000, 4, 1, grows=False)  # 6 ms
    found = weak_scaling(10e6, 0, [fixed], CHIP, 16)
    assert found is not None
    assert [found[chips] for chips in (4, 16, 256)] == pytest.approx([10 / 16] * 3)


def test_one_chip_says_nothing_of_many():
    assert weak_scaling(1, 1, [], CHIP, 1) is None


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_slices_of_a_chip_grow_to_256_and_its_links_are_those_of_a_full_slice(chip):
    sizes = []
    for shape in chip.slices:
        size = 1
        for side in shape:
            size *= side
        sizes.append(size)
    assert sizes == [1, 4, 16, 64, 256]
    assert links_of(chip.slices[-1], chip.slices[-1], chip) == chip.links
