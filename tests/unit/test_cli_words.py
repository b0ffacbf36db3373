from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from onnx import TensorProto, helper, save_model

import nas
from nas.cli import arguments, main
from nas.cli import help as texts
from nas.cli.arguments import Command, parse, quote
from nas.config import schema
from nas.config.paths import group_members
from nas.errors import ConfigError, ExportError

Runs = list[dict[str, Any]]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runs]:
    """Replaces a verb by one that notes its config and then does as it is told."""

    def replace(verb: str = "search", behave: Callable[[dict[str, Any]], int] = lambda config: 0) -> Runs:
        runs: Runs = []

        def run(config: dict[str, Any]) -> int:
            runs.append(config)
            return behave(config)

        monkeypatch.setitem(sys.modules, f"nas.cli.{verb.replace('-', '_')}", types.SimpleNamespace(run=run))  # type: ignore[arg-type]
        return runs

    return replace


def model_file(path: Path) -> Path:
    """Write a model of two operators, 4 numbers in, 4 out."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("input", "output")]
    nodes = [helper.make_node("Sin", ["input"], ["a"], name="first"), helper.make_node("Cos", ["a"], ["output"])]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


# --- words -----------------------------------------------------------------------------------------------------------


def test_verb_and_overrides() -> None:
    command = parse(["search", "space=toy", "-m", "seed=1,2", "~limits.macs", "+accuracy.x=1"])
    assert command == Command("search", ("space=toy", "seed=1,2", "~limits.macs", "+accuracy.x=1"), multirun=True)


@pytest.mark.parametrize(
    ("words", "override"),
    [
        (["profile", "a/b.onnx"], "model='a/b.onnx'"),
        (["profile", "runs=3", "b.onnx"], "model='b.onnx'"),
        (["front", "toy-digits-12ab"], "study='toy-digits-12ab'"),
        (["export", "runs/toy"], "study='runs/toy'"),
    ],
)
def test_positional_word_becomes_an_override(words: list[str], override: str) -> None:
    assert override in parse(words).overrides


def test_file_whose_name_holds_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("seed=1").mkdir()
    Path("seed=1/m.onnx").touch()
    assert parse(["profile", "./seed=1/m.onnx"]).overrides == ("model='./seed=1/m.onnx'",)
    assert parse(["search", "seed=1"]).overrides == ("seed=1",), "a folder of that name does not hide the key"


@pytest.mark.parametrize(
    "text", ["plain.onnx", "a b.onnx", "it's.onnx", "a,b[1].onnx", "back\\slash", "end\\", "\\'x", "a=b", "{x}"]
)
def test_quoting_is_undone_by_hydra(text: str) -> None:
    override = OverridesParser.create().parse_override(f"model={quote(text)}")
    assert override.value() == text
    assert not override.is_sweep_override()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["serch"], "profile, score-latency, search. Did you mean 'search'?"),
        (["model.onnx"], "Try: nas profile model.onnx"),
        (["space=toy"], "Try: nas search space=toy"),
        (["-m"], "no verb given"),
        (["search", "toy"], "Did you mean 'space=toy'?"),
        (["search", "nsga3"], "Did you mean 'sampler=nsga3'?"),
        (["devices", "qqqq"], "nas devices takes no file"),
        (["profile", "a.onnx", "b.onnx"], "takes one model; got 'a.onnx' and 'b.onnx'"),
        (["search", "--budget=3"], "Settings are written without dashes: budget=3"),
        (["search", "--budget"], "Settings are written without dashes: budget=VALUE"),
        (["search", "--multrun"], "Did you mean '--multirun'?"),
        (["search", "--cfg"], "--cfg needs a value, such as --cfg job"),
        (["search", "--config-dir"], "--config-dir needs a value, such as --config-dir PATH"),
        (["search", "--cfg", "hydra"], "only --cfg job is offered"),
        (["search", "--cfg", "job", "-m"], "contradict each other"),
        (["search", "--resolve"], "add --cfg job"),
        (["search", "-p", "space"], "add --cfg job"),
    ],
)
def test_wrong_words_are_explained(words: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(words)
    assert expected in str(caught.value)


def test_every_flag_in_the_help_is_known() -> None:
    for line in texts._FLAGS:
        for flag in line.split(", "):
            name = flag.split()[0]
            assert name in {**arguments._SWITCHES, **arguments._VALUED}


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_verbs_groups_members_and_keys(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    for verb in schema.ROOTS:
        assert f"\n  {verb}" in shown
    for group in schema.groups("search"):
        assert f"\n  {group} " in shown
        assert all(member in shown for member in group_members(group))
    for key in schema.keys("search"):
        assert f"\n  {key}" in shown
    assert "convnet*" in shown
    assert "Hydra" not in shown


@pytest.mark.parametrize("verb", list(schema.ROOTS))
def test_help_of_a_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help", "whatever.follows=1"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: nas {verb}" in shown
    for name in [*schema.groups(verb), *schema.keys(verb)]:
        assert f"\n  {name}" in shown
    assert max(map(len, shown.splitlines())) <= 120
    assert set(texts.VERBS) == set(texts._EXAMPLES) == set(schema.ROOTS)


def test_examples_of_the_help_compose(stub: Callable[..., Runs]) -> None:
    for verb, examples in texts._EXAMPLES.items():
        runs = stub(verb)
        for example in examples:
            assert main(example.split()[1:]) == 0, example
        assert len(runs) >= len(examples)


def test_help_shows_members_of_an_own_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text("a: 1\n")
    assert main(["search", "--help", "--config-dir", str(tmp_path)]) == 0
    assert " mine " in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"nas {nas.__version__}\n"


# --- running a verb --------------------------------------------------------------------------------------------------


def test_verb_gets_the_resolved_config(
    stub: Callable[..., Runs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = stub()
    assert main(["search", "space=toy", "data=imagefolder", "data.path=../mine", "budget=3"]) == 0
    (config,) = runs
    assert (config["budget"], config["choices"]["space"], config["data"]["path"]) == (3, "toy", "../mine")
    assert config["study"].startswith("toy-imagefolder-")
    assert config["overrides"] == ["space=toy", "data=imagefolder", "data.path=../mine", "budget=3"]
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_positional_study_reaches_the_verb(stub: Callable[..., Runs]) -> None:
    runs = stub("front")
    assert main(["front", "runs/toy digits", "bounds.latency_ms=2", "objective=accuracy_size"]) == 0
    assert runs[0]["study"] == "runs/toy digits"
    assert runs[0]["bounds"]["latency_ms"] == 2.0
    assert list(runs[0]["objective"]) == ["accuracy", "size_kib"]


def test_multirun_runs_one_search_per_combination(
    stub: Callable[..., Runs], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = stub()
    assert main(["search", "-m", "seed=1,2", "space=convnet,toy"]) == 0
    assert [(run["seed"], run["choices"]["space"]) for run in runs] == [
        (1, "convnet"),
        (1, "toy"),
        (2, "convnet"),
        (2, "toy"),
    ]
    assert len({run["study"] for run in runs}) == 4
    captured = capsys.readouterr()
    assert "nas search 4/4: seed=2 space=toy" in captured.err
    assert captured.out == ""


def test_multirun_is_checked_as_a_whole_before_it_starts(
    stub: Callable[..., Runs], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = stub()
    assert main(["search", "-m", "space=toy,convnett"]) == 2
    assert runs == []
    assert "Did you mean 'convnet'?" in capsys.readouterr().err


def test_multirun_goes_on_after_a_failure(stub: Callable[..., Runs], capsys: pytest.CaptureFixture[str]) -> None:
    def behave(config: dict[str, Any]) -> int:
        if config["seed"] == 1:
            raise ExportError("moved")
        return 0

    runs = stub("search", behave)
    assert main(["search", "-m", "seed=1,2"]) == 1
    assert len(runs) == 2
    assert "nas: moved" in capsys.readouterr().err


def test_interrupt_says_how_to_go_on(stub: Callable[..., Runs], capsys: pytest.CaptureFixture[str]) -> None:
    def behave(config: dict[str, Any]) -> int:
        raise KeyboardInterrupt

    runs = stub("search", behave)
    assert main(["search", "-m", "seed=1,2", "folder=out"]) == 130
    assert len(runs) == 1, "the searches after it are not started"
    assert f"nas search resume={runs[0]['study']} folder=out" in capsys.readouterr().err
    stub("profile", behave)
    assert main(["profile", "m.onnx"]) == 130
    assert "resume" not in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(ConfigError("a"), 2), (ExportError("a"), 1)])
def test_error_is_one_line_and_a_code(
    error: Exception,
    code: int,
    stub: Callable[..., Runs],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def behave(config: dict[str, Any]) -> int:
        raise error

    stub("front", behave)
    monkeypatch.delenv("NAS_TRACEBACK", raising=False)
    assert main(["front", "s"]) == code
    assert capsys.readouterr().err == "nas: a\n"
    monkeypatch.setenv("NAS_TRACEBACK", "1")
    assert main(["front", "s"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_error_of_ours_is_not_swallowed(stub: Callable[..., Runs]) -> None:
    def behave(config: dict[str, Any]) -> int:
        raise ZeroDivisionError

    stub("front", behave)
    with pytest.raises(ZeroDivisionError):
        main(["front", "s"])


def test_cfg_job_prints_the_config_and_runs_nothing(
    stub: Callable[..., Runs], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = stub()
    assert main(["search", "--cfg", "job", "space=toy", "budget=7"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["budget"] == 7
    assert config["space"]["_target_"] == "search_spaces.toy.Toy"
    assert main(["search", "--cfg=job", "--resolve", "-p", "data"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["_target_"] == "nas.data.digits.Digits"
    assert runs == []


def test_own_config_dir(stub: Callable[..., Runs], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler" / "mine.yaml").write_text("name: nsga2\noptions: {population_size: 8}\n")
    runs = stub()
    assert main(["search", "--config-dir", str(tmp_path), "sampler=mine"]) == 0
    assert runs[0]["sampler"] == {"name": "nsga2", "options": {"population_size": 8}}
    assert main(["search", "--config-dir", str(tmp_path / "no")]) == 2
    assert "is not a folder" in capsys.readouterr().err


# --- profile and devices ---------------------------------------------------------------------------------------------


def test_profile_prints_and_saves_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model_file(tmp_path / "my [model].onnx")
    assert main(["profile", "my [model].onnx", "runs=3", "latency=false", "top=1"]) == 0
    shown = capsys.readouterr().out
    assert "my [model].onnx" in shown
    assert "and 1 more operators" in shown
    assert "saved: my [model].profile.json" in shown
    saved = json.loads((tmp_path / "my [model].profile.json").read_text())
    assert {operator["kind"] for operator in saved["operators"]} == {"Sin", "Cos"}
    assert sum(operator["share"] for operator in saved["operators"]) == pytest.approx(1.0)
    assert saved["costs"] == {}, "what was not measured is absent"
    assert saved["operator_runs"] == 3


def test_profile_as_json_to_a_named_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_file(tmp_path / "m.onnx")
    target = tmp_path / "new" / "times.json"
    assert main(["profile", str(model), "runs=2", "latency=false", f"save={target}", "output=json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    assert report.pop("saved") == str(target)
    assert report == json.loads(target.read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "new"]


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["modle.onnx"], 1, "Did you mean 'model.onnx'?"),
        (["junk.onnx"], 1, "junk.onnx"),
        (["model.onnx", "device=rpi5"], 2, "use device=local"),
        (["model.onnx", "cost=predicted"], 2, "use cost=measured"),
        (["model.onnx", "latency=false", "runs=2", "save=junk.onnx/x.json"], 2, "Name another file by save="),
    ],
)
def test_profile_says_what_is_wrong(
    words: list[str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model_file(tmp_path / "model.onnx")
    (tmp_path / "junk.onnx").write_text("no model")
    assert main(["profile", *words]) == code
    assert expected in capsys.readouterr().err


def test_devices_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "measure=false", "output=json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    by_name = {row["name"]: row for row in report["devices"]}
    assert sorted(by_name) == group_members("device")
    assert by_name["local"]["key"].startswith(report["machine"]["id"])
    assert by_name["local"]["peaks"] is None, "peaks that were not measured are absent"
    assert by_name["rpi5"]["offers"] == "estimates (cost=predicted)"
    energy = report["machine"]["energy"]
    assert (energy["source"] is None) == bool(energy["why"])


def test_devices_shows_the_named_one_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "device=rpi5", "measure=false"]) == 0
    shown = capsys.readouterr().out
    assert "rpi5" in shown
    assert "rpi4" not in shown
    assert "fingerprint" in shown


def test_devices_shows_a_broken_device_with_its_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "broken.yaml").write_text(
        "_target_: nas.measure.devices.make_device\nname: broken\ntransport: none\n"
    )
    assert main(["devices", "--config-dir", str(tmp_path), "measure=false", "output=json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["devices"]
    broken = next(row for row in rows if row["name"] == "broken")
    assert "cannot be reached" in broken["error"]
