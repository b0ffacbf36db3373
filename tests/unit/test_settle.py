from dataclasses import replace

import pytest

from nas.data import Task
from nas.device import Device
from nas.errors import CandidateError
from nas.measurement import Estimate, Measurement
from nas.objective import Objective
from nas.screen import Screen
from nas.search.foresight import Foresight
from nas.search.front import complete, eligible, front_of
from nas.search.settle import pooled, settle_front, within_noise
from nas.store import StudyStore
from nas.testing.synthetic import MacsLatency, synthetic_evaluation
from search_spaces.toy import Toy

AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("latency_ms", "minimize", "ms", None, 5.0))


def reading(median, spread=0.01):
    return Measurement(median, median, spread, 200, 5, "ms", "d", "r", 0.0, 2.0, 2.0 * spread / median)


class FakeComparer:
    """Answers by a table of model folder to true latency, and remembers what it was asked."""

    def __init__(self, truth, spread=0.01):
        self.truth, self.spread, self.asked = truth, spread, []

    def compare(self, models, rounds):
        names = [model.parent.name for model in models]
        self.asked.append((names, rounds))
        return [reading(self.truth[name], self.spread) for name in names]


@pytest.fixture
def study(tmp_path):
    """A store of complete candidates, values given as (accuracy, latency_ms)."""
    space = Toy(Task("image_classification", 1, 10), (8,))
    screen = Screen(space, Device("fake", "x86_64", 1), MacsLatency(), {}, AXES)
    architectures = list(space.enumerate())
    store = StudyStore(tmp_path / "store.sqlite")

    def add(name, score, time_ms, metrics=("accuracy", "latency_ms"), std=None):
        evaluation = synthetic_evaluation(screen, architectures.pop())
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "model.onnx").touch()
        own = {key: value for key, value in evaluation.values.items() if key not in ("accuracy", "latency_ms")}
        values = own | dict(zip(metrics, (score, time_ms), strict=True))
        latency = reading(time_ms) if std is None else Estimate(time_ms, std, "ms", "m", "d")
        provenance = {metrics[1]: latency.to_dict()}
        store.add_trial(
            "complete",
            replace(evaluation, values=values, provenance=provenance, folder=f"models/{name}"),
            {},
        )

    return store, tmp_path, add


def names(store):
    return [evaluation.folder.split("/")[1] for _, evaluation in front_of(complete(store), AXES)]


def test_new_readings_replace_the_searchs_and_keep_them_beside(study):
    store, folder, add = study
    add("a", 0.9, 2.0)
    add("b", 0.8, 1.0)
    assert settle_front(store, folder, FakeComparer({"a": 2.5, "b": 1.5}), AXES) == []
    values = [evaluation.values for _, evaluation in complete(store)]
    assert [(v["latency_ms"], v["search_latency_ms"]) for v in values] == [(2.5, 2.0), (1.5, 1.0)]


def test_a_member_that_was_lucky_leaves_and_what_it_hid_is_measured_too(study):
    store, folder, add = study
    add("lucky", 0.9, 1.0)
    add("hidden", 0.85, 1.5)
    add("best", 0.95, 3.0)
    comparer = FakeComparer({"lucky": 2.0, "hidden": 1.5, "best": 3.0})
    assert settle_front(store, folder, comparer, AXES) == []
    assert names(store) == ["best", "lucky", "hidden"]
    assert [sorted(asked) for asked, _ in comparer.asked] == [["best", "lucky"], *[["best", "hidden", "lucky"]] * 2]


def test_what_stays_within_noise_is_said_after_longer_measuring(study):
    store, folder, add = study
    add("a", 0.9, 2.0)
    add("b", 0.9, 2.01)
    add("c", 0.91, 2.02)
    comparer = FakeComparer({"a": 2.0, "b": 2.01, "c": 2.02}, spread=0.05)
    notes = settle_front(store, folder, comparer, AXES, attempts=3)
    assert [rounds for _, rounds in comparer.asked] == [10, 20, 40]
    assert notes
    assert "within noise" in notes[0]
    assert store.get("within_noise") == notes


def test_order_by_another_objective_is_no_matter_of_noise(study):
    store, _, add = study
    add("a", 0.9, 2.0)
    add("b", 0.8, 1.0)
    axes = (*AXES, Objective("macs", "minimize"))
    members = complete(store)
    members = [
        (members[0][0], replace(members[0][1], values={**members[0][1].values, "macs": 9, "latency_ms": 2.0})),
        (members[1][0], replace(members[1][1], values={**members[1][1].values, "macs": 5, "latency_ms": 2.0})),
    ]
    assert within_noise(members, members, axes) == []


def test_without_latency_nothing_is_measured(study):
    store, folder, add = study
    add("a", 0.9, 2.0)
    comparer = FakeComparer({})
    assert settle_front(store, folder, comparer, AXES[:1]) == []
    assert comparer.asked == []


def test_a_candidate_that_one_unlucky_reading_kept_off_is_timed_too(study):
    store, folder, add = study
    add("a", 0.9, 2.0)
    add("unlucky", 0.89, 2.04)
    add("hopeless", 0.5, 4.0)
    comparer = FakeComparer({"a": 2.0, "unlucky": 1.8})
    assert settle_front(store, folder, comparer, AXES) == []
    assert sorted(comparer.asked[0][0]) == ["a", "unlucky"]
    assert names(store) == ["a", "unlucky"]


def test_readings_of_a_busy_machine_are_repeated_and_then_said(study):
    store, folder, add = study
    add("a", 0.9, 2.0)

    class Busy(FakeComparer):
        def compare(self, models, rounds):
            return [replace(found, disturbed=True) for found in super().compare(models, rounds)]

    comparer = Busy({"a": 2.0})
    (note,) = settle_front(store, folder, comparer, AXES)
    assert "busy" in note
    assert len(comparer.asked) == 3


def test_every_member_is_timed_in_two_processes_and_the_spread_between_them_counts(study):
    store, folder, add = study
    add("a", 0.9, 2.0)

    class Shifting(FakeComparer):
        def compare(self, models, rounds):
            shift = 0.1 * len(self.asked)
            return [replace(found, anchor_ratio=2.0 + shift) for found in super().compare(models, rounds)]

    comparer = Shifting({"a": 2.0})
    assert settle_front(store, folder, comparer, AXES) == []
    assert [rounds for _, rounds in comparer.asked] == [10, 20]
    origin = complete(store)[0][1].provenance["latency_ms"]
    assert origin["anchor_ratio"] == pytest.approx(2.05)
    assert origin["anchor_spread"] == pytest.approx(0.05)
    assert origin["count"] == 400


def test_a_disturbed_reading_counts_only_where_there_is_no_calm_one():
    calm, busy = reading(2.0), replace(reading(3.0), disturbed=True)
    assert pooled([busy, calm]) == calm
    assert pooled([busy, busy]).disturbed
    assert pooled([busy, busy]).median == 3.0


def test_of_a_language_model_the_time_per_token_is_settled(study):
    store, folder, add = study
    add("a", 10.0, 2.0, ("perplexity", "token_ms"))
    add("b", 20.0, 1.0, ("perplexity", "token_ms"))
    axes = (Objective("perplexity", "minimize"), Objective("token_ms", "minimize", "ms"))
    assert settle_front(store, folder, FakeComparer({"a": 2.5, "b": 1.5}), axes) == []
    values = [evaluation.values for _, evaluation in complete(store)]
    assert [(v["token_ms"], v["search_token_ms"]) for v in values] == [(2.5, 2.0), (1.5, 1.0)]
    assert "latency_ms" not in values[0]


def kinds(store):
    return {e.folder.split("/")[1]: e.provenance["latency_ms"]["provenance"] for _, e in complete(store)}


def test_estimates_on_the_front_and_those_that_could_be_are_measured_and_the_rest_is_not(study):
    store, folder, add = study
    add("front", 0.9, 2.0, std=0.2)
    add("doubtful", 0.8, 2.2, std=0.2)  # 90 % interval from 1.87
    add("hopeless", 0.8, 3.0, std=0.2)
    comparer = FakeComparer({"front": 2.1, "doubtful": 2.5})
    settle_front(store, folder, comparer, AXES)
    assert set(comparer.asked[0][0]) == {"front", "doubtful"}
    assert kinds(store) == {"front": "measured", "doubtful": "measured", "hopeless": "predicted"}
    assert store.get("readings")["settle"] == sum(len(names) for names, _ in comparer.asked)


def test_the_front_is_decided_anew_until_nothing_on_it_is_an_estimate(study):
    store, folder, add = study
    # Each measurement is far worse than foretold, beyond every interval, and uncovers the next candidate.
    truth = {}
    for index in range(6):
        add(f"c{index}", 0.9 - 0.01 * index, 1.0 + 0.2 * index, std=0.001)
        truth[f"c{index}"] = 10.0 - index
    comparer = FakeComparer(truth)
    settle_front(store, folder, comparer, AXES, attempts=2)
    found = kinds(store)
    assert all(found[name] == "measured" for name in names(store))
    assert len(comparer.asked) > 2


def test_an_estimate_that_cannot_be_timed_is_on_no_front_and_said_so(study):
    store, folder, add = study
    add("broken", 0.95, 1.0, std=0.1)
    add("sound", 0.9, 2.0, std=0.1)

    class Crashing(FakeComparer):
        def compare(self, models, rounds):
            if any(model.parent.name == "broken" for model in models):
                raise CandidateError("crash", "the runtime died")
            return super().compare(models, rounds)

    notes = settle_front(store, folder, Crashing({"sound": 2.0}), AXES)
    assert any("trial 0 cannot be timed (crash: the runtime died)" in note for note in notes)
    assert [number for number, _ in front_of(eligible(store, AXES), AXES)] == [1]
    assert kinds(store)["broken"] == "predicted"


def test_where_latency_is_no_axis_the_front_is_measured_all_the_same_before_it_ships(study):
    store, folder, add = study
    axes = (AXES[0], Objective("size_kib", "minimize", "KiB", None, 1e6))
    for index, score in enumerate((0.9, 0.8, 0.7)):
        add(f"c{index}", score, 1.0 + index, std=0.1)
    front = {e.folder.split("/")[1] for _, e in front_of(complete(store), axes)}
    comparer = FakeComparer(dict.fromkeys(front, 1.5))
    assert settle_front(store, folder, comparer, axes) == []
    assert comparer.asked == []
    screen = Screen(
        Toy(Task("image_classification", 1, 10), (8,)), Device("fake", "x86_64", 1), MacsLatency(), {}, axes
    )
    assert settle_front(store, folder, comparer, axes, Foresight(MacsLatency(), screen)) == []
    assert len(comparer.asked) == 1
    assert {name for name, kind in kinds(store).items() if kind == "measured"} == front


def test_a_fault_that_is_no_candidates_is_raised(study):
    store, folder, add = study
    add("measured", 0.9, 1.0)

    class Crashing(FakeComparer):
        def compare(self, models, rounds):
            raise CandidateError("crash", "always")

    with pytest.raises(CandidateError):
        settle_front(store, folder, Crashing({}), AXES)


def test_an_estimate_counts_as_feasible_when_its_interval_reaches_within_the_bound(study):
    store, folder, add = study
    bounded = (AXES[0], replace(AXES[1], bound=2.0))
    add("doubtful", 0.9, 2.1, std=0.2)
    add("beyond", 0.95, 3.0, std=0.2)
    assert [number for number, _ in eligible(store, bounded)] == [0]
    settle_front(store, folder, FakeComparer({"doubtful": 2.3}), bounded)
    assert eligible(store, bounded) == []
