"""Intervals hold the truth in 92 to 98% of simulated data sets, tests reject a true null in at most 6% at 5%."""

import numpy as np
import pytest

from tests.statistics.simulate import (
    BEC_SD,
    SETS,
    TERMS,
    Found,
    bec_case,
    cases,
    crows_case,
    simulate,
    stereoset_case,
    winobias_case,
)

QUICK = 400


def check(found: Found, sets: int) -> None:
    """The bounds, with two standard errors of the simulation."""
    if found.coverage is not None:
        assert found.coverage >= 0.92 - 2 * np.sqrt(0.92 * 0.08 / sets), found
        if not found.edge:
            assert found.coverage <= 0.98 + 2 * np.sqrt(0.98 * 0.02 / sets), found
    if found.rejection is not None:
        assert found.rejection <= 0.06 + 2 * np.sqrt(0.06 * 0.94 / sets), found


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(list(cases()))))
def test_every_figure_of_every_benchmark(number):
    check(simulate(list(cases())[number], SETS, seed=number), SETS)


@pytest.mark.parametrize(
    "case",
    [
        stereoset_case(TERMS, 0.53, 0.05),
        stereoset_case(TERMS[:5], 0.6, 0.3),
        stereoset_case(TERMS, 0.99, 0.05, "lm", edge=True),
        crows_case(262, 0.5),
        winobias_case(0.82, 0.82, 0.2, "pro_minus_anti"),
        bec_case("bec_pro", 60, 9, BEC_SD, ("difference", "overall")),
    ],
)
def test_a_few_cases_quickly(case):
    check(simulate(case, QUICK), QUICK)


def test_three_terms_have_no_interval():
    assert simulate(stereoset_case(TERMS[:3], 0.5, 0.0), 10).coverage == 0
    assert simulate(stereoset_case(TERMS[:3], 0.5, 0.0), 10).rejection == 0
