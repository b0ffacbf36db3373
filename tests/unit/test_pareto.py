import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.pareto import crowding_distance, hypervolume, non_dominated

points = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 6)] * width), min_size=1, max_size=9)
)


@settings(max_examples=150, deadline=None)
@given(points)
def test_hypervolume_equals_counted_unit_cells(losses):
    reference = [6] * len(losses[0])
    cells = itertools.product(*[range(6)] * len(reference))
    counted = sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in losses) for cell in cells)
    assert hypervolume(losses, reference) == pytest.approx(counted)


@settings(max_examples=100, deadline=None)
@given(points)
def test_a_point_is_kept_exactly_if_none_dominates_it(losses):
    for point, kept in zip(losses, non_dominated(losses), strict=True):
        dominated = any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in losses)
        assert kept == (not dominated)


def test_no_points_have_no_volume_and_nan_is_refused():
    assert hypervolume([], [1.0, 1.0]) == 0.0
    with pytest.raises(ValueError, match="NaN"):
        hypervolume([[0.0, float("nan")]], [1.0, 1.0])
    with pytest.raises(ValueError, match="objectives"):
        hypervolume([[0.0, 0.0, 0.0]], [1.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        hypervolume([[0.0]], [np.inf])


def test_crowding_distance_of_a_worked_example():
    # Sorted along the line x + y = 4: the gaps of the inner two add up as in Deb's figure.
    distance = crowding_distance([[0, 4], [1, 3], [3, 1], [4, 0]])
    assert distance[[0, 3]].tolist() == [np.inf, np.inf]
    assert distance[[1, 2]] == pytest.approx([3 / 4 + 3 / 4] * 2)
