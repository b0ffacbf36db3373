"""Readings from a slow or busy machine are found by the anchor and taken again."""

from dataclasses import replace

import pytest

from nas.data import Task
from nas.device import Device
from nas.measurement import Estimate, Measurement
from nas.objective import Objective
from nas.screen import Screen
from nas.search.drift import DRIFT, affected, calm_level, retime_drifted
from nas.search.front import complete
from nas.store import StudyStore
from nas.testing.synthetic import MacsLatency, synthetic_evaluation
from search_spaces.toy import Toy

AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("latency_ms", "minimize", "ms", None, 5.0))
CALM_MS = 0.5


def reading(latency_ms, slower=0.0, disturbed=False):
    """What a machine says that runs everything, the anchor included, slower by this share."""
    median = latency_ms * (1 + slower)
    return Measurement(
        median, median, 0.01, 200, 5, "ms", "d", "r", 0.0, latency_ms / CALM_MS, 0.01, disturbed=disturbed
    )


class Machine:
    """Times models that all take a millisecond in calm minutes, each time slower by the next share."""

    def __init__(self, *slower):
        self.slower, self.asked = list(slower), []

    def compare(self, models, rounds):
        names = [model.parent.name for model in models]
        self.asked.append(names)
        share = self.slower.pop(0)
        return [reading(1.0, share) for _ in names]


@pytest.fixture
def study(tmp_path):
    space = Toy(Task("image_classification", 1, 10), (8,))
    screen = Screen(space, Device("fake", "x86_64", 1), MacsLatency(), {}, AXES)
    architectures = list(space.enumerate())
    store = StudyStore(tmp_path / "store.sqlite")

    def add(number, state="complete", constraints=None):
        name = str(len(architectures))
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.onnx").touch()
        evaluation = synthetic_evaluation(screen, architectures.pop())
        store.add_trial(
            state,
            replace(
                evaluation,
                values={**evaluation.values, "latency_ms": number.value},
                provenance={"latency_ms": number.to_dict()},
                constraints=constraints or {},
                folder=f"models/{name}",
            ),
            constraints or {},
        )

    return store, tmp_path, add


def latencies(store):
    return [evaluation.values["latency_ms"] for _, evaluation in complete(store)]


def test_a_calm_search_is_left_alone(study):
    store, folder, add = study
    for share in (0.0, 0.05, 0.1, DRIFT - 0.01):
        add(reading(1.0, share))
    machine = Machine()
    assert retime_drifted(store, folder, machine, AXES) == []
    assert machine.asked == []


def test_what_was_timed_on_a_throttled_machine_is_timed_again_and_said(study):
    store, folder, add = study
    for share in (0.4, 0.3, 0.0, 0.0, 0.02):
        add(reading(1.0, share))
    machine = Machine(0.0)
    (note,) = retime_drifted(store, folder, machine, AXES)
    assert [len(names) for names in machine.asked] == [2]
    assert latencies(store) == pytest.approx([1.0, 1.0, 1.0, 1.0, 1.02])
    assert "trials 0, 1 were timed while it was busy or the anchor model ran slower" in note
    assert "by up to 40% (allowed 15%); timed again" in note


def test_a_disturbed_sample_is_timed_again_whatever_its_anchor_says(study):
    store, folder, add = study
    add(reading(2.0, disturbed=True))
    for _ in range(3):
        add(reading(1.0))
    machine = Machine(0.0)
    (note,) = retime_drifted(store, folder, machine, AXES)
    assert len(machine.asked) == 1
    assert "trial 0 was timed" in note


def test_a_machine_that_stays_slow_is_said(study):
    store, folder, add = study
    for share in (0.5, 0.0, 0.0, 0.0):
        add(reading(1.0, share))
    machine = Machine(0.3, 0.3)
    notes = retime_drifted(store, folder, machine, AXES)
    assert len(machine.asked) == 2
    assert "trial 0 was not timed in a calm minute" in notes[1]


def test_what_was_refused_on_a_slow_machine_is_said(study):
    store, folder, add = study
    for _ in range(3):
        add(reading(1.0))
    add(reading(1.0, 0.5), state="infeasible", constraints={"latency_ms": 0.1})
    add(reading(1.0, 0.5), state="infeasible", constraints={"size_kib": 0.1})
    add(reading(1.0), state="infeasible", constraints={"latency_ms": 0.1})
    (note,) = retime_drifted(store, folder, Machine(), AXES)
    assert "trial 3 was refused for a latency" in note


def test_estimates_and_few_readings_have_no_level(study):
    store, folder, add = study
    add(reading(1.0, 0.9))
    add(reading(1.0))
    add(Estimate(1.0, 0.1, "ms", "roofline", "d"))
    assert calm_level(complete(store)) is None
    assert retime_drifted(store, folder, Machine(), AXES) == []
    assert [number for number, _ in affected(complete(store), CALM_MS)] == [0]
    assert retime_drifted(store, folder, Machine(), AXES[:1]) == []


def test_a_file_that_is_gone_is_not_asked_for(study):
    store, folder, add = study
    for share in (0.5, 0.0, 0.0, 0.0):
        add(reading(1.0, share))
    (folder / complete(store)[0][1].folder / "model.onnx").unlink()
    notes = retime_drifted(store, folder, Machine(), AXES)
    assert "trial 0 was not timed in a calm minute" in notes[1]
