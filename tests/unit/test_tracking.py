"""What the MLflow tracker writes, and that it writes it once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pyarrow.parquet
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from onnx import TensorProto, helper

from nas.evaluation import State
from nas.measurement import Estimate
from nas.pareto import non_dominated
from nas.protocols import SearchSnapshot, ShippedModel, Tracker
from nas.testing.snapshots import OBJECTIVES, make_operators, make_snapshot, with_front
from nas.tracking import content, report
from nas.tracking.address import resolve_address
from nas.tracking.mlflow_tracker import MlflowTracker
from nas.tracking.registry import model_name
from nas.tracking.writer import StudyWriter


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables and nothing in it; making them takes MLflow 8 s, so once for all tests."""
    path = tmp_path_factory.getbasetemp() / "mlflow-empty.db"
    if not path.exists():
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def write(uri: str, snapshot: SearchSnapshot, with_files: bool = False) -> None:
    StudyWriter(resolve_address(uri, None), "hwnas").write(snapshot, with_files)


def runs(uri: str, kind: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("hwnas")
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id], f"tags.`hwnas.kind` = '{kind}'", view))


def assert_agrees(uri: str, snapshot: SearchSnapshot) -> None:
    """Exactly one parent, and exactly one finished child with the right content per fully evaluated candidate."""
    (parent,) = runs(uri, "search")
    wanted = {candidate.key: candidate for candidate in content.candidates(snapshot)}
    children = runs(uri, "candidate")
    assert sorted(child.data.tags["hwnas.evaluation"] for child in children) == sorted(wanted)
    for child in children:
        candidate = wanted[child.data.tags["hwnas.evaluation"]]
        assert child.info.status == "FINISHED"
        assert child.info.run_name == candidate.name
        assert child.data.metrics == pytest.approx(dict(candidate.metrics))
        assert child.data.params == dict(candidate.params)
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert candidate.tags.items() <= child.data.tags.items()
    last = {point.name: point.value for point in content.search_metrics(snapshot)}
    assert parent.data.metrics == pytest.approx(last)
    assert parent.info.status == ("FINISHED" if snapshot.finished else "RUNNING")


def with_model(snapshot: SearchSnapshot, trial: int, negative: bool = False) -> SearchSnapshot:
    """Ship a tiny model whose bytes depend on ``negative``."""
    folder = snapshot.folder / f"export-{trial}-{negative}"
    folder.mkdir(parents=True, exist_ok=True)
    node = helper.make_node("Neg" if negative else "Relu", ["input"], ["logits"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("input", "logits")]
    graph = helper.make_graph([node], "tiny", ends[:1], ends[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    (folder / "model_card.json").write_text(json.dumps({"trial": trial}))
    return replace(snapshot, finished=True, shipped=ShippedModel(trial, folder, "knee", "it bends", make_operators(5)))


# What is written


def test_parent_and_children_hold_the_snapshot(uri: str, tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=12)
    write(uri, snapshot)
    assert_agrees(uri, snapshot)
    (parent,) = runs(uri, "search")
    assert parent.info.run_name == "synthetic"
    assert parent.data.params["space.name"] == "toy"
    assert parent.data.tags["device.fingerprint.cpu"] == "Made-up CPU"
    assert parent.data.tags["env.torch"] == "2.13.0"
    assert "| trial |" in parent.data.tags["mlflow.note.content"]


def test_failed_and_unfinished_candidates_get_no_run(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path, trials=40)
    states = {candidate.tags["state"] for candidate in content.candidates(snapshot)}
    assert states == {"complete", "infeasible"}
    assert all("accuracy" in candidate.metrics for candidate in content.candidates(snapshot))
    assert any(item.state is State.FAILED for _, item in snapshot.evaluations)


def test_the_same_snapshot_again_adds_nothing(uri: str, tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=6)
    writer = StudyWriter(resolve_address(uri, None), "hwnas")
    writer.write(snapshot, with_files=True)
    before = {run.info.run_id: run.to_dictionary() for run in (*runs(uri, "search"), *runs(uri, "candidate"))}
    writer.write(snapshot, with_files=True)
    write(uri, snapshot, with_files=True)
    after = {run.info.run_id: run.to_dictionary() for run in (*runs(uri, "search"), *runs(uri, "candidate"))}
    assert after == before


def test_a_growing_search_changes_only_what_changed(uri: str, tmp_path: Path) -> None:
    writer = StudyWriter(resolve_address(uri, None), "hwnas")
    for trials in (0, 3, 7):
        snapshot = make_snapshot(tmp_path / "study", trials=trials)
        writer.write(snapshot, with_files=False)
        assert writer.written == len(content.candidates(snapshot))
    # The budget is a parameter, which cannot change: the newest value stands in a tag.
    (parent,) = runs(uri, "search")
    assert parent.data.params["budget"] == "0"
    assert "budget: 0 -> 7" in parent.data.tags["config_changed"]
    moved = with_front(replace(snapshot, finished=True), snapshot.front[:1])
    writer.write(moved, with_files=False)
    assert_agrees(uri, moved)
    on_front = [run for run in runs(uri, "candidate") if run.data.tags["on_front"] == "true"]
    assert [run.data.tags["trial"] for run in on_front] == [str(snapshot.front[0])]


def test_a_value_measured_again_replaces_the_old_one(uri: str, tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=3)
    write(uri, snapshot)
    trial, first = snapshot.evaluations[0]
    again = replace(first, values={**first.values, "latency_ms": first.values["latency_ms"] * 0.5})
    changed = replace(snapshot, evaluations=((trial, again), *snapshot.evaluations[1:]))
    write(uri, changed)
    assert_agrees(uri, changed)


def test_metrics_step_where_the_search_grows(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path, trials=30)
    points = content.search_metrics(snapshot)
    sizes = {point.step: point.value for point in points if point.name == "front_size"}
    for step in sorted(sizes):
        seen = [item for trial, item in snapshot.evaluations if trial < step and item.state is State.COMPLETE]
        front = non_dominated([[axis.loss(item.values) for axis in OBJECTIVES] for item in seen])
        assert sizes[step] == front.sum()
    best = [point.value for point in points if point.name == "best_accuracy"]
    assert best == sorted(best)
    assert len(best) > 1
    fastest = min(
        (item for _, item in snapshot.evaluations if item.state is State.COMPLETE), key=lambda e: e.values["latency_ms"]
    )
    last = {point.name: point.value for point in points}
    assert last["fastest_latency_ms"] == fastest.values["latency_ms"]
    assert last["fastest_accuracy"] == fastest.values["accuracy"]


def predicted(snapshot: SearchSnapshot) -> SearchSnapshot:
    """Return the search as one with cost=auto: each latency was foretold, too low and too high in turns."""
    told = []
    for trial, item in snapshot.evaluations:
        if "latency_ms" in item.values:
            mean = item.values["latency_ms"] * (0.95 if trial % 2 else 1.05)
            origin = Estimate(mean, 0.1 * mean, "ms", "online", "local").to_dict()
            values, origins = {**item.values, "predicted_latency_ms": mean}, dict(item.provenance)
            item = replace(item, values=values, provenance={**origins, "predicted_latency_ms": origin})  # noqa: PLW2901
        told.append((trial, item))
    return replace(snapshot, evaluations=tuple(told), config={**snapshot.config, "cost": {"mode": "auto"}})


def test_a_search_that_predicts_shows_its_tau_over_the_steps_and_what_it_saved(uri: str, tmp_path: Path) -> None:
    snapshot = predicted(make_snapshot(tmp_path / "study", trials=30, finished=True))
    points = content.search_metrics(snapshot)
    taus = {point.step: point.value for point in points if point.name == "latency_kendall_tau"}
    assert len(taus) > 5
    assert all(0 < tau <= 1 for tau in taus.values())
    origins = [item.provenance.get("latency_ms", {}).get("provenance") for _, item in snapshot.evaluations]
    unread = [
        trial for trial, item in snapshot.evaluations if item.state is State.COMPLETE and origins[trial] == "modelled"
    ]
    last = {point.name: point.value for point in points}
    assert last["latency_measurements_saved"] == len(unread)
    assert last["latency_measurements"] == origins.count("measured")
    assert last["latency_coverage_90"] == 1.0
    write(uri, snapshot, with_files=True)
    client, (parent,) = MlflowClient(tracking_uri=uri), runs(uri, "search")
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"predictions.html", "predictions.png"} <= names
    history = client.get_metric_history(parent.info.run_id, "latency_kendall_tau")
    assert {metric.step: metric.value for metric in history} == taus
    text = parent.data.tags[content.NOTE]
    assert f"{len(unread)} measurements were saved" in text
    assert "predictions.png" in text


def test_files_of_a_finished_search(uri: str, tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=12)
    snapshot = with_model(snapshot, snapshot.front[0])
    write(uri, snapshot, with_files=True)
    client, (parent,) = MlflowClient(tracking_uri=uri), runs(uri, "search")
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    tables = {"front.json", "trials.parquet", "config.json", "shipped"}
    assert names == tables | {"pareto.html", "pareto.png", "operators.png", "operators.html"}
    assert str(tmp_path / "artifacts") in parent.info.artifact_uri
    folder = Path(parent.info.artifact_uri.removeprefix("file://"))
    front = json.loads((folder / "front.json").read_text())
    assert [member["trial"] for member in front["members"]] == list(snapshot.front)
    assert front["members"][0]["provenance"]["latency_ms"]["provenance"] in ("measured", "modelled")
    table = pyarrow.parquet.read_table(folder / "trials.parquet").to_pydict()
    assert table["trial"] == list(range(12))
    assert table["accuracy"][8] is None  # failed: absent, not zero
    assert table["choice.width"][0] == snapshot.evaluations[0][1].architecture.choices["width"]


def test_the_description_fits_mlflow_and_cannot_break_its_table(tmp_path: Path) -> None:
    axes = [replace(axis, reference=None) for axis in OBJECTIVES]  # no hypervolume, which takes long to grow
    snapshot = make_snapshot(tmp_path, trials=400, study="a|b <b>", objectives=axes)
    everyone = [trial for trial, item in snapshot.evaluations if item.state is State.COMPLETE]
    text = report.description(with_front(snapshot, everyone), "0" * 32)
    assert len(text) <= 7900
    assert "more members" in text
    assert text.startswith("**a\\|b &lt;b>**")


def test_two_studies_of_one_name_stay_apart(uri: str, tmp_path: Path) -> None:
    first = make_snapshot(tmp_path / "a", trials=2)
    write(uri, first)
    write(uri, replace(first, started=first.started + 60))
    assert len(runs(uri, "search")) == 2
    assert len(runs(uri, "candidate")) == 4


# What a cut or a race leaves behind


def cut(monkeypatch: pytest.MonkeyPatch, method: str, after: bool, count: int) -> None:
    """Let the process die at the ``count``-th call of a method of MLflow's client, before or after it took effect."""
    real: Callable[..., Any] = getattr(MlflowClient, method)
    calls = iter(range(1, 1000))

    def dying(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        last = next(calls) == count
        if last and not after:
            raise Killed
        result = real(self, *args, **kwargs)
        if last:
            raise Killed
        return result

    monkeypatch.setattr(MlflowClient, method, dying)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("create_run", 1),
        ("create_run", 3),
        ("log_batch", 1),
        ("log_batch", 4),
        ("set_terminated", 2),
        ("create_experiment", 1),
    ],
)
def test_a_cut_pass_is_completed_without_duplicates(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, count: int, after: bool
) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=4)
    with monkeypatch.context() as patch:
        cut(patch, method, after, count)
        with pytest.raises(Killed):
            write(uri, snapshot)
    write(uri, snapshot)
    assert_agrees(uri, snapshot)
    everything = runs(uri, "candidate", ViewType.ALL)
    assert len(everything) == len(content.candidates(snapshot))


def test_runs_that_a_race_doubled_become_one(uri: str, tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=3)
    write(uri, snapshot)
    client = MlflowClient(tracking_uri=uri)
    for run in (*runs(uri, "search"), *runs(uri, "candidate")[:2]):
        client.create_run(run.info.experiment_id, run.info.start_time, dict(run.data.tags), run.info.run_name)
    write(uri, snapshot)
    assert_agrees(uri, snapshot)


# The model that ships


def test_what_ships_is_registered_once_as_champion(uri: str, tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=8)
    first, second = snapshot.front[:2]
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    name = model_name("hwnas", "synthetic")
    for _ in range(2):
        write(uri, with_model(snapshot, first), with_files=True)
        (version,) = client.search_model_versions(f"name = '{name}'")
        assert client.get_model_version_by_alias(name, "champion").version == version.version
    model = onnx.load(Path(version.source.removeprefix("file://")) / "model.onnx")
    assert [node.op_type for node in model.graph.node] == ["Relu"]
    assert "onnx" in yaml.safe_load((Path(version.source.removeprefix("file://")) / "MLmodel").read_text())["flavors"]
    # A second decision adds a version and moves the alias; going back to the first only moves it.
    write(uri, with_model(snapshot, second, negative=True), with_files=True)
    assert len(client.search_model_versions(f"name = '{name}'")) == 2
    assert client.get_model_version_by_alias(name, "champion").tags["trial"] == str(second)
    write(uri, with_model(snapshot, first), with_files=True)
    assert len(client.search_model_versions(f"name = '{name}'")) == 2
    assert client.get_model_version_by_alias(name, "champion").tags["trial"] == str(first)


@pytest.mark.parametrize(
    "method", ["create_logged_model", "log_model_artifacts", "create_model_version", "set_registered_model_alias"]
)
def test_a_cut_registration_is_completed_without_duplicates(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=2)
    snapshot = with_model(snapshot, snapshot.front[0])
    with monkeypatch.context() as patch:
        cut(patch, method, after=True, count=1)
        with pytest.raises(Killed):
            write(uri, snapshot, with_files=True)
    write(uri, snapshot, with_files=True)
    client, (parent,) = MlflowClient(tracking_uri=uri, registry_uri=uri), runs(uri, "search")
    (version,) = client.search_model_versions(f"name = '{model_name('hwnas', 'synthetic')}'")
    assert client.get_model_version_by_alias(version.name, "champion").version == version.version
    (model,) = client.search_logged_models([parent.info.experiment_id])
    assert model.status == "READY"


def test_model_names_are_those_that_mlflow_takes() -> None:
    assert model_name("hwnas", "digits/conv:1") == "hwnas.digits_conv_1"


# The thread


def test_close_returns_the_command_and_the_page_of_the_run(uri: str, tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=3, finished=True)
    tracker: Tracker = MlflowTracker(uri, port=5055)
    tracker.update(snapshot)
    line = tracker.close(120.0)
    (parent,) = runs(uri, "search")
    assert f"mlflow ui --backend-store-uri {uri} --port 5055  ->  " in line
    page = f"http://127.0.0.1:5055/#/experiments/1/runs/{parent.info.run_id}?workflowType=machine_learning"
    assert line.endswith(page)
    assert_agrees(uri, snapshot)


def test_close_without_a_snapshot_says_so(uri: str) -> None:
    assert "nothing was given" in MlflowTracker(uri).close(1.0)


def test_what_an_unreachable_server_missed_is_added_later(uri: str, tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "study", trials=4, finished=True)
    lost = MlflowTracker("http://127.0.0.1:9", request_timeout_s=1)
    lost.update(snapshot)
    lost.close(30.0)
    later = MlflowTracker(uri)
    later.update(snapshot)
    assert "->" in later.close(120.0)
    assert_agrees(uri, snapshot)


# Addresses and settings
