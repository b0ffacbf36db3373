import numpy as np
import pytest
from scipy.stats import kendalltau

from latency_models.bayes import LogSum
from latency_models.online import GROUPS, OnlineLatency, _terms
from latency_models.roofline import Roofline
from nas.data import Task
from nas.device import Device, Peaks
from nas.errors import ConfigError, MeasurementError
from nas.measurement import Measurement
from search_spaces.convnet import ConvNet

DEVICE = Device("fake", "x86_64", 2, peaks=Peaks(50.0, 150.0, 10.0, 1.0, "made up"))
NOISE = 0.03


def measured(value):
    return Measurement(value, value, 0.01 * value, 200, 5, "ms", "d", "r", 0.0)


@pytest.fixture(scope="module")
def world():
    """Graphs of a space with latencies by factors that no model knows: overhead dear, each kind with its own."""
    space, rng = ConvNet(Task("image_classification", 1, 10), (8,)), np.random.default_rng(3)
    graphs = [space.lower(space.sample(rng)) for _ in range(70)]
    common = {"overhead": 3.0, "arithmetic": 1.5, "traffic": 0.7}
    factors = {}
    rows = []
    for graph in graphs:
        total = 0.0
        for term, value in sorted(_terms(graph, DEVICE).items()):
            factors.setdefault(term, common[term[0]] * np.exp(0.6 * rng.standard_normal()))
            total += factors[term] * value
        rows.append((graph, DEVICE, measured(total * np.exp(NOISE * rng.standard_normal()))))
    return rows


def test_until_there_are_measurements_enough_it_is_the_starting_model_and_says_so(world):
    model, start = OnlineLatency(Roofline(), fewest=6), Roofline()
    model.fit(world[:5])
    said = model.predict(world[9][0], DEVICE)
    assert (said.mean, said.kind) == (start.predict(world[9][0], DEVICE).mean, "modelled")
    model.fit(world[:6])
    assert model.predict(world[9][0], DEVICE).kind == "predicted"
    model.fit([])
    assert model.predict(world[9][0], DEVICE).kind == "modelled"


def test_its_intervals_hold_what_comes_next_and_its_order_is_right(world):
    model, inside, pairs = OnlineLatency(Roofline()), [], []
    for count in range(8, 70, 2):
        model.fit(world[:count])
        for graph, device, reading in world[count : count + 2]:
            said = model.predict(graph, device)
            inside.append(abs(said.mean - reading.median) <= 1.645 * said.std)
            pairs.append((said.mean, reading.median))
    # 90 % of 62, of which a binomial lies below 80 % once in a hundred times.
    assert 0.80 <= np.mean(inside) <= 1.0
    assert kendalltau(*zip(*pairs, strict=True)).statistic > 0.85


def test_with_more_measurements_errors_and_intervals_shrink_to_the_noise_and_beat_the_scaled_roofline(world):
    few, many, scaled = OnlineLatency(Roofline()), OnlineLatency(Roofline()), Roofline()
    few.fit(world[:8])
    many.fit(world[:55])
    scaled.fit(world[:55])

    def errors(model):
        return [abs(model.predict(g, d).mean / reading.median - 1) for g, d, reading in world[55:]]

    def widths(model):
        return [model.predict(g, d).std / model.predict(g, d).mean for g, d, _ in world[55:]]

    assert np.mean(errors(many)) < min(np.mean(errors(few)), 0.5 * np.mean(errors(scaled)), 3 * NOISE)
    assert np.mean(widths(many)) < 0.6 * np.mean(widths(few))
    assert min(widths(many)) > 0.5 * NOISE


def test_what_it_has_never_seen_widens_the_interval():
    rows = np.array([[1.0, float(x)] for x in range(1, 9)])
    fitted = LogSum.fit(rows, np.array([0, 1]), len(GROUPS), np.log(rows.sum(axis=1)))
    known = fitted.predict(np.array([1.0, 4.0]), np.zeros(3))
    strange = fitted.predict(np.array([1.0, 2.0]), np.array([0.0, 2.0, 0.0]))
    assert known[0] == pytest.approx(5.0, rel=0.03)
    assert strange[1] > 3 * known[1]


def test_a_device_without_peaks_is_learned_all_the_same(world):
    blind = Device("fake", "x86_64", 2)
    model = OnlineLatency(Roofline())
    model.fit([(graph, blind, reading) for graph, _, reading in world[:55]])
    errors = [abs(model.predict(graph, blind).mean / reading.median - 1) for graph, _, reading in world[55:]]
    assert np.mean(errors) < 0.1


def test_what_cannot_be_learned_from_is_refused(world):
    with pytest.raises(MeasurementError, match="latency of 0"):
        OnlineLatency(Roofline()).fit([(world[0][0], DEVICE, measured(0.0))])
    with pytest.raises(ConfigError, match="fewest=2"):
        OnlineLatency(Roofline(), fewest=2)
