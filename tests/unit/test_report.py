from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from nas.accuracy.training import ShortTraining
from nas.config.build import _check_same_machine, _ship
from nas.config.parts import environment
from nas.config.report import run_front
from nas.config.sources import _check_range
from nas.data import Task
from nas.device import Device
from nas.errors import ConfigError, ExportError, StoreError
from nas.objective import Objective
from nas.screen import Screen
from nas.search.front import complete, eligible, front_of, study_objectives
from nas.search.shipping import Shipper
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


def parts_here(key="here/t1", data="d"):
    return SimpleNamespace(device_keys={"device": key}, dataset=SimpleNamespace(fingerprint=data))


def test_a_study_of_another_machine_or_other_data_is_not_mixed_with_this_ones_numbers(study):
    _, store = study
    _check_same_machine(parts_here(), store)
    store.put("environment", environment())
    store.put("device", {"key": "here/t1"})
    store.put("data", "d")
    _check_same_machine(parts_here(), store)
    with pytest.raises(StoreError, match=r"device here/t1 then, there/t1 now.*new study"):
        _check_same_machine(parts_here(key="there/t1"), store)
    with pytest.raises(StoreError, match=r"data d then, e now"):
        _check_same_machine(parts_here(data="e"), store)


def test_a_failed_export_keeps_the_earlier_one_and_says_so(study):
    folder, store = study
    (folder / "s" / "export").mkdir()
    store.put("shipped", {"trial": 7})

    def fail(rule):
        raise ExportError("it moved")

    shipper = SimpleNamespace(choose=lambda rule: None, ship=fail, store=store, home="export")
    parts = SimpleNamespace(accuracy=ShortTraining(), folder=folder / "s")
    shipped, reason = _ship(parts, shipper, "knee")
    assert shipped is None
    assert reason == "export failed: it moved. The folder export still holds the earlier one, trial 7."
    assert (folder / "s" / "export").is_dir()


def test_pruned_candidates_never_return_to_the_front(study):
    folder, store = study
    axes = study_objectives(store)
    before = front_of(eligible(store, axes), axes)
    shipper = Shipper(store, folder / "s", axes, None, None, None)
    removed = shipper.prune()
    assert removed == len(complete(store)) - len(before)
    # The machine has become slower for all members: without the note, pruned candidates would take their places.
    store.put(
        "settled",
        {
            str(number): {**evaluation.provenance["latency_ms"], "median": evaluation.values["latency_ms"] * 1.5}
            for number, evaluation in before
        },
    )
    after = front_of(eligible(store, axes), axes)
    assert {number for number, _ in after} <= {number for number, _ in before}
    assert {number for number, _ in front_of(complete(store), axes)} - {number for number, _ in after}


def test_a_member_that_settled_beyond_its_bound_cannot_ship(study):
    _, store = study
    axes = (AXES[0], replace(AXES[1], bound=1.0))
    number, evaluation = front_of(eligible(store, axes), axes)[0]
    store.put("settled", {str(number): {**evaluation.provenance["latency_ms"], "median": 1.1}})
    assert number not in {other for other, _ in eligible(store, axes)}


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (Objective("accuracy", "maximize", bound=90.0), "did you mean 0.9"),
        (Objective("accuracy", "maximize", reference=1.0), "below 1"),
        (Objective("latency_ms", "minimize", bound=0.0), "above 0"),
    ],
)
def test_a_bound_out_of_its_metrics_range_is_refused(objective, words):
    with pytest.raises(ConfigError, match=words):
        _check_range(objective)
