"""When a finite loss is taken for a diverged one."""

import pytest

from ncfair_jax.divergence import diverged, held_out_diverged, training_diverged, training_growth


def logged(losses, every):
    return [{"step": 0, "unc3": 0.1}] + [{"step": every * (i + 1), "loss": loss} for i, loss in enumerate(losses)]


def test_first_and_last_twentieth_are_means_over_steps():
    # 400 steps, logged every 10: a twentieth is 20 steps, two log points.
    losses = [3.0, 5.0, *[100.0] * 36, 7.0, 8.0]
    assert training_growth(logged(losses, 10), 400) == (4.0, 7.5)
    uneven = [
        {"step": 1, "loss": 2.0},
        {"step": 20, "loss": 4.0},
        {"step": 380, "loss": 1.0},
        {"step": 400, "loss": 9.0},
    ]
    assert training_growth(uneven, 400) == pytest.approx(((2 + 19 * 4) / 20, 9.0))


def test_a_log_interval_is_taken_where_it_is_longer():
    assert training_growth(logged([4.0, 1.0, 5.0], 20), 60) == (4.0, 5.0)
    assert training_growth(logged([4.0], 20), 20) is None
    assert training_growth([], 20) is None


@pytest.mark.parametrize(("last", "grew"), [(14.9, False), (15.1, True), (2e14, True), (1.0, False)])
def test_one_and_a_half_times_is_too_much(last, grew):
    text = training_diverged(logged([10.0, 10.0, last], 20), 60)
    assert bool(text) == grew
    if grew:
        assert text.startswith(
            f"The training diverged: its loss went from 10 (first twentieth of the steps) to {last:.4g} "
        )
        assert "\n" not in text


def test_an_early_stop_sees_what_is_logged_so_far():
    assert training_diverged(logged([10.0, 30.0], 20), 100_000) == ""  # the first twentieth is not over
    assert training_diverged(logged([10.0] * 250 + [30.0] * 249, 20), 100_000) == ""
    assert training_diverged(logged([10.0] * 250 + [30.0] * 251, 20), 100_000) != ""


def test_the_held_out_loss_may_grow_by_half():
    def figures(loss):
        return {"benchmarks": [["StereoSet SS, %", 52.0, None, 7], ["Held-out loss, nats", loss, None, 9]]}

    assert held_out_diverged(figures(5.0), figures(7.4)) == ""
    assert held_out_diverged(figures(5.0), figures(7.6)).startswith(
        "The model was damaged: its held-out loss went from 5 to 7.6"
    )
    assert held_out_diverged({"benchmarks": []}, figures(7.6)) == ""
    assert held_out_diverged({"benchmarks": []}, {}) == ""
    assert len(diverged(logged([1.0, 1.0, 9.0], 20), 60, figures(5.0), figures(7.6))) == 2
