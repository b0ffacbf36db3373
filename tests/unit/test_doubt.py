import json
import math

import pytest

from nas.doubt import Z_90, Guess, Rival, gain, interval, why_measure
from nas.measurement import Estimate, Measurement
from nas.objective import Objective

AXES = (
    Objective("accuracy", "maximize", "", None, 0.0),
    Objective("latency_ms", "minimize", "ms", None, 10.0),
    Objective("size_kib", "minimize", "KiB", None, 100.0),
)


def estimate(mean, half=1.0, kind="predicted"):
    return Estimate(mean, half / Z_90, "ms", "m", "d", kind)


def rival(trial, accuracy, latency_ms, size_kib=50.0, worst_ms=None):
    values = {"accuracy": accuracy, "latency_ms": latency_ms, "size_kib": size_kib}
    return Rival(trial, values, latency_ms if worst_ms is None else worst_ms)


def why(mean, rivals, accuracy=0.8, size_kib=50.0, half=1.0, least_gain=0.0, bound=None, kind="predicted"):
    guess = Guess(estimate(mean, half, kind), tuple(rivals), least_gain)
    return why_measure(guess, {"accuracy": accuracy, "size_kib": size_kib}, AXES, bound)


def test_a_candidate_whose_interval_cannot_reach_the_front_is_not_measured():
    assert why(5.0, [rival(1, 0.9, 3.5)]) == ""
    assert why(5.0, [rival(1, 0.9, 4.0)]) == ""


def test_a_candidate_whose_interval_can_reach_the_front_is_measured_and_told_why():
    assert "trial 1 dominates" in why(5.0, [rival(1, 0.9, 4.5)])
    assert "trial 1 dominates" in why(5.0, [rival(1, 0.9, 5.5)])


def test_a_candidate_that_is_on_the_front_wherever_in_its_interval_it_lies_waits_for_the_end():
    assert why(5.0, [rival(1, 0.7, 4.5)]) == ""
    assert why(5.0, [rival(1, 0.9, 6.5)]) == ""
    assert why(5.0, [rival(1, 0.9, 5.0, size_kib=60.0)]) == ""


def test_one_sure_dominator_ends_the_doubt_that_another_leaves():
    doubtful = rival(1, 0.9, 5.0)
    assert why(5.0, [doubtful])
    assert why(5.0, [doubtful, rival(2, 0.85, 2.0)]) == ""


def test_a_rival_that_is_predicted_dominates_surely_only_by_the_upper_end_of_its_interval():
    assert why(5.0, [rival(1, 0.9, 3.5, worst_ms=4.5)])
    assert why(5.0, [rival(1, 0.9, 3.5, worst_ms=3.9)]) == ""


def test_a_bound_inside_the_interval_is_measured_and_one_beside_it_is_not():
    assert "bound of 5" in why(5.5, [], bound=5.0)
    assert why(3.0, [], bound=5.0) == ""
    over = Guess(estimate(7.0))
    assert over.exceeds(5.0)
    assert not over.doubts_bound(5.0)
    assert not Guess(estimate(5.5)).exceeds(5.0)


def test_a_model_that_has_seen_too_little_decides_nothing():
    assert "too little" in why(50.0, [rival(1, 0.9, 1.0)], kind="modelled")
    assert Guess(estimate(50.0, kind="modelled")).doubts_bound(5.0)
    assert not Guess(estimate(50.0, kind="modelled")).exceeds(5.0)


def test_a_place_on_the_front_that_adds_too_little_is_not_worth_a_measurement():
    # At the lower end it would take 4 to 5 ms below an accuracy of 0.8, sizes from 50 on: 0.04 of the box.
    rivals = [rival(1, 0.9, 5.0)]
    assert gain({"accuracy": 0.8, "latency_ms": 4.0, "size_kib": 50.0}, [rivals[0].values], AXES) == pytest.approx(0.04)
    assert why(5.0, rivals, least_gain=0.039)
    assert why(5.0, rivals, least_gain=0.041) == ""


def test_without_a_reference_every_gain_is_worth_it():
    axes = (AXES[0], Objective("latency_ms", "minimize", "ms"))
    assert gain({"accuracy": 0.8, "latency_ms": 4.0}, [], axes) == math.inf
    guess = Guess(estimate(5.0), (rival(1, 0.9, 5.0),), 0.5)
    assert why_measure(guess, {"accuracy": 0.8}, axes)


def test_a_latency_that_is_no_objective_matters_to_its_bound_only():
    axes = (AXES[0], AXES[2])
    guess = Guess(estimate(5.0), (rival(1, 0.9, 5.0),))
    assert why_measure(guess, {"accuracy": 0.8, "size_kib": 50.0}, axes) == ""
    assert why_measure(guess, {"accuracy": 0.8, "size_kib": 50.0}, axes, 5.5)


def test_intervals_are_those_of_a_normal_and_a_measurement_has_none():
    assert interval(estimate(5.0)) == pytest.approx((4.0, 6.0))
    assert interval(estimate(0.5))[0] == 0.0
    assert interval(Measurement(5.0, 5.0, 1.0, 10, 1, "ms", "d", "r", 0.0)) == (5.0, 5.0)


def test_a_guess_survives_json():
    guess = Guess(estimate(5.0), (rival(1, 0.9, 5.0),), 0.001)
    assert Guess.from_dict(json.loads(json.dumps(guess.to_dict()))) == guess
