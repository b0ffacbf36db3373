"""Several devices in one search: names, views of the store, fronts, and what shipping elsewhere loses."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from nas.config.compose import Request, resolve
from nas.config.parts import Parts
from nas.config.report import run_front
from nas.config.sources import check_sources
from nas.config.study import identity
from nas.data import Task
from nas.device import Device
from nas.errors import CandidateError, ConfigError, MeasurementError
from nas.evaluation import Baseline
from nas.measure.target import Target
from nas.measurement import Estimate
from nas.objective import Objective
from nas.screen import Screen
from nas.search.front import complete, front_of, study_objectives
from nas.search.several import device_stores, full_snapshot
from nas.store import StudyStore
from nas.targets import expanded, on_device, own_axes, seen_on, split
from nas.testing.synthetic import MacsLatency, synthetic_evaluation
from nas.tracking.report import description, write_files
from search_spaces.toy import Toy

AXES = (
    Objective("accuracy", "maximize", "", None, 0.0),
    Objective("latency_ms", "minimize", "ms", None, 5.0),
    Objective("size_kib", "minimize", "KiB", None, 20.0),
)


def screen(name="fake", model=None, **settings):
    space = Toy(Task("image_classification", 1, 10), (8,))
    return Screen(space, Device(name, "x86_64", 1), model or MacsLatency(), {}, AXES, **settings)


def compose(*words):
    return resolve(Request("search", ("experiment=digits_toy", "tracking=none", *words)))


@pytest.fixture
def study(tmp_path):
    """A finished study of every toy network on a desk and on a board that is slow where the desk is quick."""
    store = StudyStore(tmp_path / "runs" / "s" / "store.sqlite")
    for index, architecture in enumerate(screen().space.enumerate()):
        made = replace(synthetic_evaluation(screen(), architecture), folder=f"models/{architecture.id}")
        there = 1.0 + (index * 7919) % 101 / 100
        origin = Estimate(there, 0.1, "ms", "made up", "board").to_dict()
        store.add_trial(
            "complete",
            replace(
                made,
                values={**made.values, "latency_ms@board": there},
                provenance={**made.provenance, "latency_ms@board": origin},
            ),
            {},
        )
    axes = expanded(AXES, ["board"])
    facts = {name: {"name": name, "key": name} for name in ("desk", "board")}
    for name, value in {
        "config": {"rule": "fastest_within_1"},
        "study": "s",
        "objectives": [asdict(axis) for axis in axes],
        "device": facts["desk"],
        "devices": facts,
    }.items():
        store.put(name, value)
    return tmp_path / "runs", store


def ask(folder, **settings):
    asked = {"study": "s", "folder": str(folder), "rule": "fastest_within_1", "objective": None, "bounds": {}}
    return run_front({**asked, **settings})


def test_only_what_depends_on_the_device_has_an_axis_per_device():
    axes = expanded(AXES, ["board", "phone"])
    assert [axis.metric for axis in axes] == [
        "accuracy", "latency_ms", "latency_ms@board", "latency_ms@phone", "size_kib",
    ]  # fmt: skip
    assert split("latency_ms@board") == ("latency_ms", "board")
    assert own_axes(axes) == AXES


def test_each_device_sees_its_own_values_under_the_plain_names(study):
    _, store = study
    views = device_stores(store)
    for (_, joint), (_, desk), (_, board) in zip(
        complete(store), complete(views["desk"]), complete(views["board"]), strict=True
    ):
        assert desk == joint
        assert board.values["latency_ms"] == joint.values["latency_ms@board"]
        assert board.values["latency_ms@desk"] == joint.values["latency_ms"]
        assert board.values["size_kib"] == joint.values["size_kib"]
        assert board.provenance["latency_ms"]["device"] == "board"
        assert seen_on(seen_on(joint, "desk", "board"), "board", "desk") == joint


def test_what_a_device_notes_does_not_touch_the_others(study):
    _, store = study
    views = device_stores(store)
    number, evaluation = complete(views["board"])[3]
    views["board"].put("settled", {str(number): {**evaluation.provenance["latency_ms"], "mean": 77.0}})
    assert store.get("settled") is None
    assert views["board"].get("settled@desk") is None
    joint = dict(complete(store))[number]
    assert joint.values["latency_ms@board"] == 77.0
    assert joint.values["search_latency_ms@board"] == evaluation.values["latency_ms"]
    assert dict(complete(views["board"]))[number].values["latency_ms"] == 77.0
    assert dict(complete(views["desk"]))[number].values["latency_ms"] == joint.values["latency_ms"] != 77.0
    views["desk"].put("settled", {str(number): {**evaluation.provenance["latency_ms"], "mean": 55.0}})
    assert dict(complete(views["board"]))[number].values["latency_ms@desk"] == 55.0


def test_a_front_per_device_and_what_shipping_elsewhere_loses(study):
    folder, store = study
    report = ask(folder)
    assert set(report.devices) == {"desk", "board"}
    joint = {number for number, _ in report.front}
    for name, own in report.devices.items():
        axes = own_axes(study_objectives(device_stores(store)[name]))
        everything = complete(device_stores(store)[name])
        wanted = [[axis.loss(one.values) for axis in axes] for _, one in front_of(everything, axes)]
        assert [[axis.loss(one.values) for axis in axes] for _, one in own.front] == wanted
        assert {number for number, _ in own.front} <= joint
    found = {(exchange.winner_of, exchange.on): exchange for exchange in report.exchanges}
    assert len(found) == 4
    there = found["desk", "board"]
    values = dict(complete(store))
    assert there.trial == report.devices["desk"].shipped != report.devices["board"].shipped == there.own_trial
    assert there.time_ms == values[there.trial].values["latency_ms@board"]
    best = values[there.own_trial].values["latency_ms@board"]
    assert there.lost_time == pytest.approx(there.time_ms / best - 1)
    assert there.lost_time > 0
    assert 0 <= there.lost_at_its_quality <= there.lost_time
    assert found["board", "board"].lost_time == 0
    assert there.estimated
    assert found["desk", "board"].text.startswith("~")
    printed = json.loads(json.dumps(report.to_dict()))
    assert printed["devices"]["board"]["shipped"] == there.own_trial
    assert printed["exchanges"][1]["lost_time"] == there.lost_time
    assert all("latency_ms@board" in member for member in printed["front"])


def test_a_bound_holds_on_each_device_by_itself(study):
    folder, store = study
    limit = sorted(one.values["latency_ms@board"] for _, one in complete(store))[2]
    report = ask(folder, bounds={"latency_ms": limit})
    for name, own in report.devices.items():
        assert own.front, name
        assert all(one.values["latency_ms"] <= limit for _, one in own.front)
    assert all(one.values["latency_ms@board"] <= limit for _, one in report.front)


def test_a_device_without_a_qualified_member_leaves_the_others(study):
    folder, store = study
    quick = min(one.values["latency_ms"] for _, one in complete(store))
    assert quick < 0.9
    report = ask(folder, rule="best_under_0.9ms")
    assert set(report.devices) == {"desk"}
    assert "board: no member of the front runs under 0.9 ms" in report.reason


def test_the_page_has_a_front_per_device_and_the_table(study, tmp_path):
    folder, store = study
    store.put(
        "baselines",
        [Baseline("net", "net.onnx", "k", values={"latency_ms": 0.5, "accuracy": 0.5}).to_dict()],
    )
    snapshot = full_snapshot(store, folder / "s")
    assert snapshot.devices["board"].baselines[0].values == {"latency_ms@desk": 0.5, "accuracy": 0.5}
    text = description(snapshot, "run")
    assert "Winner of one device on another" in text
    assert "**Front on board** (artifact `pareto_board.html`)" in text
    assert len(text) < 8000
    write_files(snapshot, tmp_path)
    for name in ("desk", "board"):
        assert "Latency" in (tmp_path / f"pareto_{name}.html").read_text()
        document = json.loads((tmp_path / f"front_{name}.json").read_text())
        assert [axis["metric"] for axis in document["objectives"]] == ["accuracy", "latency_ms", "size_kib"]
    assert len(json.loads((tmp_path / "exchanges.json").read_text())) == 4


class Meter:
    has_energy = False

    def __init__(self, answer):
        self.answer = answer

    def measure(self, model):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_costs_and_failures_carry_the_device(tmp_path):
    architecture = next(iter(screen().space.enumerate()))
    graph = screen().space.lower(architecture)
    predicted = Target("board", screen("board"), None, None).timings(tmp_path, architecture, graph)
    assert list(predicted) == ["latency_ms@board"]
    assert predicted["latency_ms@board"].device == "board"
    reading = object()
    measured = Target("board", screen("board"), Meter({"latency_ms": reading}), None)
    assert measured.timings(tmp_path, architecture, graph) == {"latency_ms@board": reading}
    with pytest.raises(CandidateError, match="on device 'board': it hung") as caught:
        Target("board", screen(), Meter(CandidateError("timeout", "it hung")), None).measured(tmp_path)
    assert caught.value.kind == "timeout"
    with pytest.raises(MeasurementError, match=r"device 'board': the link was cut"):
        Target("board", screen(), Meter(MeasurementError("the link was cut")), None).measured(tmp_path)
    with pytest.raises(MeasurementError, match=r"^the link was cut"):
        Target("", screen(), Meter(MeasurementError("the link was cut")), None).measured(tmp_path)


def test_the_screen_holds_a_bound_on_every_device():
    both = replace(screen(), objectives=expanded((replace(AXES[1], bound=1e-9),), ["board"]), margin=1.0)
    both = replace(both, others={"board": screen("board", margin=1e12)}, limits={"latency_ms": 1e-6})
    costs = both.costs(next(iter(both.space.enumerate())))
    assert {"predicted_latency_ms", on_device("predicted_latency_ms", "board")} <= set(costs)
    assert both.bounds == {"latency_ms": 1e-9, "latency_ms@board": 1e-9}
    assert set(both.violations(costs)) == {"latency_ms"}


def test_devices_are_composed_one_node_each_and_what_is_out_of_reach_is_predicted(tmp_path):
    config = compose("devices={desk: local, board: rpi4}", "devices.desk.peaks=null", "limits.latency_ms=3")
    assert config["device"] == config["devices"]["desk"]
    assert config["devices"]["board"]["name"] == "rpi4"
    assert (config["cost"]["mode"], config["costs"]["board"]["mode"]) == ("measured", "predicted")
    parts = Parts(config, tmp_path)
    assert parts.others["board"].meter is None
    assert [axis.metric for axis in parts.objectives if "latency" in axis.metric] == ["latency_ms", "latency_ms@board"]
    assert parts.screen.bounds["latency_ms@board"] == 3
    assert list(parts.device_keys) == ["device", "device board"]
    key = parts.key_of(parts.space.sample(np.random.default_rng(0)))
    assert key.device == "+".join(parts.device_keys.values())
    own = compose("devices=[local,rpi4]", "costs={local: predicted}")
    assert (own["cost"]["mode"], own["costs"]["rpi4"]["mode"]) == ("predicted", "predicted")
    assert "devices" not in identity(compose())
    assert "devices" in identity(own)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["devices=[local,rpi6]"], r"unknown device 'rpi6'.*Did you mean 'rpi5'"),
        (["devices=[local]"], r"expected two devices or more.*device=NAME"),
        (["devices=local"], r"expected two devices or more"),
        (["devices=[local,local]"], "names a device twice"),
        (["devices={a-b: local, c: rpi4}"], "letters, digits and '_', not 'a-b'"),
        (["devices=[local,rpi4]", "device=rpi5"], "stands beside devices="),
        (["devices=[local,rpi4]", "device.threads=2"], r"devices\.NAME\.KEY"),
        (["devices=[local,rpi4]", "devices.rpi4.thraeds=2"], r"Did you mean 'devices\.rpi4\.threads'"),
        (["devices=[local,rpi4]", "costs={rpi5: predicted}"], "unknown device in costs 'rpi5'"),
        (["costs=[predicted]"], "expected costs={NAME: predicted}"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_mend(words, complaint):
    with pytest.raises(ConfigError, match=complaint):
        compose(*words)


def test_a_metric_that_one_device_cannot_give_is_refused_by_its_name(tmp_path):
    words = ("devices=[local,rpi4]", "devices.local.peaks=null", "objective=accuracy_latency_memory")
    with pytest.raises(ConfigError, match="device 'rpi4': nothing gives objective memory_kib"):
        check_sources(Parts(compose(*words), tmp_path))
    two = ("devices={a: local, b: local}", "devices.a.peaks=null", "devices.b.peaks=null", words[-1])
    with pytest.raises(ConfigError, match="device 'b': cost=auto predicts latency_ms alone, but memory_kib"):
        check_sources(Parts(compose(*two, "costs={b: auto}"), tmp_path))
