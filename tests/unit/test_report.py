from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from nas.config.build import _check_same_machine, _ship
from nas.config.parts import environment
from nas.config.report import run_front
from nas.data import Task
from nas.device import Device
from nas.errors import ConfigError, ExportError, StoreError
from nas.evaluate import Screen
from nas.objective import Objective
from nas.search.front import complete, front_of
from nas.store import StudyStore
from nas.testing.synthetic import MacsLatency, synthetic_evaluation
from search_spaces.toy import Toy

AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("latency_ms", "minimize", "ms", None, 5.0))


@pytest.fixture
def study(tmp_path):
    """A finished study of every toy network: (folder, store)."""
    screen = Screen(
        Toy(Task("image_classification", 1, 10), (8,)), Device("fake", "x86_64", 1), MacsLatency(), {}, AXES
    )
    store = StudyStore(tmp_path / "runs" / "s" / "store.sqlite")
    for architecture in screen.space.enumerate():
        evaluation = replace(synthetic_evaluation(screen, architecture), folder=f"models/{architecture.id}")
        store.add_trial("complete", evaluation, {})
        model = tmp_path / "runs" / "s" / evaluation.folder / "model.onnx"
        model.parent.mkdir(parents=True)
        model.touch()
    for name, value in {"config": {}, "study": "s", "objectives": [asdict(axis) for axis in AXES]}.items():
        store.put(name, value)
    return tmp_path / "runs", store


def ask(folder, **settings):
    return run_front({"study": "s", "folder": str(folder), "rule": "knee", "objective": None, "bounds": {}, **settings})


def test_the_front_as_it_was(study):
    folder, store = study
    report = ask(folder)
    assert [number for number, _ in report.front] == [number for number, _ in front_of(complete(store), AXES)]
    assert report.exportable


def test_a_tighter_bound_leaves_what_is_within_it(study):
    folder, _ = study
    whole = ask(folder)
    cut = sorted(evaluation.values["latency_ms"] for _, evaluation in whole.front)[1]
    report = ask(folder, bounds={"latency_ms": cut, "accuracy": None})
    assert len(report.front) == 2
    assert report.exportable


def test_a_bound_on_a_metric_that_is_no_axis_holds_too(study):
    folder, _ = study
    limit = min(evaluation.values["size_kib"] for _, evaluation in ask(folder).front) * 1.5
    report = ask(folder, bounds={"size_kib": limit})
    assert report.front
    assert all(evaluation.values["size_kib"] <= limit for _, evaluation in report.front)


def test_an_impossible_bound_says_so(study):
    with pytest.raises(ConfigError, match="front is empty"):
        ask(study[0], bounds={"latency_ms": 1e-9})


def test_what_was_pruned_cannot_be_exported(study):
    folder, _ = study
    for model in folder.glob("s/models/*/model.onnx"):
        model.unlink()
    assert not ask(folder).exportable


def test_a_study_of_another_machine_is_not_mixed_with_this_ones_numbers(study):
    _, store = study
    parts = SimpleNamespace(device=SimpleNamespace(key="here/t1"))
    _check_same_machine(parts, store)
    store.put("environment", environment())
    store.put("device", {"key": "here/t1"})
    _check_same_machine(parts, store)
    store.put("device", {"key": "there/t1"})
    with pytest.raises(StoreError, match=r"there/t1 then, here/t1 now.*new study"):
        _check_same_machine(parts, store)


def test_a_failed_export_leaves_nothing_that_looks_shipped(study):
    folder, store = study
    (folder / "s" / "export").mkdir()
    store.put("shipped", {"trial": 0})

    def fail(rule):
        raise ExportError("it moved")

    shipper = SimpleNamespace(choose=lambda rule: None, ship=fail)
    trainer = SimpleNamespace(train=None, key="k")
    shipped, reason = _ship(SimpleNamespace(accuracy=trainer, folder=folder / "s"), store, shipper, "knee")
    assert shipped is None
    assert reason == "export failed, nothing ships: it moved"
    assert store.get("shipped") is None
    assert not (folder / "s" / "export").exists()
