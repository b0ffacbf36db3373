from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas.config import schema, spelling, values
from nas.config.compose import Request, parse, resolve
from nas.config.paths import conf_dir, group_members
from nas.errors import ConfigError
from nas.testing.configs import complaint, composed

MANDATORY = {
    "search": [],
    "front": ["study=s"],
    "export": ["study=s"],
    "profile": ["model=m.onnx"],
    "devices": [],
    "fit": [],
    "predict": ["file=m.onnx"],
    "score-latency": ["table=t.csv", "encoding=hat", "target=ms"],
}
MEMBERS = [
    (verb, group, member)
    for verb in schema.ROOTS
    if verb != "plan"  # composes what search composes
    for group in schema.groups(verb)
    for member in group_members(group)
]


# --- every YAML composes ---------------------------------------------------------------------------------------------


def test_every_yaml_is_reached_by_a_verb() -> None:
    reached = {f"{group}/{member}.yaml" for _, group, member in MEMBERS} | {f"{verb}.yaml" for verb in schema.ROOTS}
    assert {path.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")} == reached


@pytest.mark.parametrize(("verb", "group", "member"), MEMBERS)
def test_every_member_of_every_group_composes(verb: str, group: str, member: str) -> None:
    overrides = [*MANDATORY[verb], f"{group}={member}"]
    try:
        config = composed(verb, *overrides)
    except ConfigError as error:
        absent = re.findall(r"(\S+)=VALUE", str(error))
        if not absent:  # more than a mandatory value
            raise
        config = composed(verb, *overrides, *(f"{key}=somewhere" for key in absent))
    assert config["choices"][group] == member


def test_a_plan_takes_what_a_search_takes() -> None:
    assert yaml.safe_load((conf_dir() / "plan.yaml").read_text()) == {"defaults": ["search", "_self_"]}
    planned, searched = (resolve(Request(verb, ("space=toy", "study=a"))) for verb in ("plan", "search"))
    assert planned == searched


@pytest.mark.parametrize("verb", [verb for verb in schema.ROOTS if verb != "plan"])
def test_schema_and_yaml_agree(verb: str) -> None:
    written = yaml.safe_load((conf_dir() / f"{verb}.yaml").read_text())
    defaults = written.pop("defaults")
    assert defaults[:2] == [f"{verb}_schema", "_self_"], "the schema comes first, groups override the root"
    assert [next(iter(entry)) for entry in defaults[2:]] == list(schema.groups(verb))
    for name, (default, _) in schema.keys(verb).items():
        given = written[name]
        if isinstance(default, dict):
            # What a YAML leaves out of a section keeps the schema's default.
            assert given.keys() <= default.keys() or not default
            given = {**default, **given}
        assert given == default, f"{name} has another default in the YAML than in the schema"
    assert set(written) == set(schema.keys(verb))


def test_experiment_is_the_last_default() -> None:
    assert yaml.safe_load((conf_dir() / "search.yaml").read_text())["defaults"][-1] == {"experiment": None}


def test_no_path_of_a_machine_in_any_yaml() -> None:
    for path in conf_dir().rglob("*.yaml"):
        assert not re.search(r"(/home/|/work/|/tmp/|/root/|\.\./)", path.read_text()), path


# --- values ----------------------------------------------------------------------------------------------------------


def test_defaults_are_resolved_plain_containers() -> None:
    config = composed()
    assert config["budget"] == 40
    assert type(config["space"]) is dict
    assert config["space"]["resolutions"] == config["data"]["resolutions"]
    assert config["choices"]["space"] == "convnet"
    assert config["choices"]["experiment"] is None
    assert config["overrides"] == []


def test_bound_of_an_objective() -> None:
    config = composed("search", "objective.latency_ms.bound=2")
    assert config["objective"]["latency_ms"] == {"direction": "minimize", "unit": "ms", "bound": 2.0, "reference": None}


def test_objective_group_replaces_the_axes() -> None:
    assert list(composed("search", "objective=accuracy_size")["objective"]) == ["accuracy", "size_kib"]


def test_experiment_changes_groups_and_keys_and_yields_to_the_command_line() -> None:
    config = composed("search", "experiment=digits_toy", "budget=3")
    assert config["choices"]["space"] == "toy"
    assert config["budget"] == 3
    assert config["calibration_images"] == 32
    assert composed("search", "+experiment=digits_toy")["choices"]["experiment"] == "digits_toy"


def test_relative_paths_stay_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = composed("search", "data=imagefolder", "data.path=../pictures", "folder=out")
    assert (config["data"]["path"], config["folder"]) == ("../pictures", "out")
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == [], "composing leaves nothing behind"


def test_environment_variable_in_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_FOLDER", "abc")
    assert composed("search", "folder=${oc.env:SOME_FOLDER}")["folder"] == "abc"


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The composed default search without what composing adds to the schema's keys."""
    config = composed()
    added = ("choices", "overrides", "config_dir", "plugins")
    return {key: value for key, value in config.items() if key not in added}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budget=abc", "budget=abc: expected a whole number (candidates to evaluate)."),
        ("budget=1.5", "budget=1.5: expected a whole number"),
        ("budget=null", "budget: "),
        ("budget=0", "budget=0: expected at least 1"),
        ("hours=soon", "hours=soon: expected a number"),
        ("limits.macs=many", "limits.macs=many: expected a whole number"),
        ("objective.latency_ms.bound=fast", "objective.latency_ms.bound=fast: expected a number"),
        ("proxies=macs", "proxies"),
    ],
)
def test_value_of_a_wrong_type(override: str, expected: str) -> None:
    assert expected in complaint(override)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("hours", 0.0, "hours=0.0: expected more than 0"),
        ("hours", float("nan"), "hours=nan: expected a finite number"),
        ("seed", -1, "seed=-1: expected at least 0"),
        ("calibration_images", 0, "calibration_images=0: expected at least 1"),
        ("limits.latency_ms", 0.0, "limits.latency_ms=0.0: expected more than 0"),
        ("limits.depth", 1, "unknown key 'limits.depth'"),
        ("executor.workers", 0, "executor.workers=0: expected at least 1"),
        ("executor.kind", "forked", "unknown value of executor.kind 'forked'"),
        ("objective.latency_ms.direction", "minimise", "Did you mean 'minimize'?"),
        ("objective.speed", {"direction": "maximize"}, "unknown metric in objective 'speed'"),
        ("objective", {}, "objective is empty"),
        ("output", "jsn", "unknown value of output 'jsn'; have json, text. Did you mean 'json'?"),
        ("progress", "lively", "Did you mean 'live'?"),
        ("energy", "modeled", "Did you mean 'modelled'?"),
        ("keep", "none", "unknown value of keep 'none'; have all, front."),
        ("proxies", ["macs", "synflo"], "unknown value of proxies 'synflo'"),
        ("rule", "kne", "Did you mean 'knee'?"),
        ("rule", "best_under_2", "best_under_<milliseconds>ms"),
        ("study", "../other", "study=../other"),
        ("study", ".hidden", "it names a folder"),
        ("foo", 1, "unknown key 'foo'"),
    ],
)
def test_value_beyond_its_limits(path: str, value: object, expected: str, defaults: dict[str, Any]) -> None:
    config = copy.deepcopy(defaults)
    *parents, last = path.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    values.check("search", config)
    node[last] = value
    with pytest.raises(ConfigError) as caught:
        values.check("search", config)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "rule", ["knee", "fastest_within_1", "fastest_within_0.5", "best_under_2ms", "best_under_1.5ms"]
)
def test_rules_of_the_grammar_pass(rule: str, defaults: dict[str, Any]) -> None:
    values.check("search", {**defaults, "rule": rule})


# --- spelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("spase=toy", "unknown key 'spase'. Did you mean 'space'? --help lists the groups and keys."),
        ("limits.mac=3", "size_kib, token_ms, ttft_ms. Did you mean 'limits.macs'?"),
        ("+foo=1", "unknown key 'foo'; have"),
        ("+limits.foo=1", "unknown key 'limits.foo'"),
        ("space=convnett", "unknown space 'convnett'; have"),
        ("space=convnett", "Did you mean 'convnet'?"),
        ("device=locl", "Did you mean 'local'?"),
        ("experiment=digit_toy", "Did you mean 'digits_toy'?"),
        ("space=3", "unknown space '3'"),
        ("space={a: 1}", "unknown space"),
        ("budget", "cannot read 'budget'"),
        ("limits=[1", "cannot read 'limits=[1'"),
    ],
)
def test_misspelling_is_corrected(override: str, expected: str) -> None:
    assert expected in complaint(override)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budgt=3", "Did you mean 'budget'?"),
        ("~budgt", "Did you mean 'budget'?"),
        ("sampel=toy", "Did you mean 'sampler'?"),
        ("experimnt=x", "Did you mean 'experiment'?"),
        ("latency_ms.bound=2", "Did you mean 'objective.latency_ms.bound'?"),
        ("objective.latencyms.bound=2", "Did you mean 'objective.latency_ms.bound'?"),
        ("objective.latency_ms.bond=2", "Did you mean 'objective.latency_ms.bound'?"),
        ("epochs=3", "Did you mean 'accuracy.epochs'?"),
        ("epohcs=3", "Did you mean 'accuracy.epochs'?"),
        ("zzzz=1", "unknown key 'zzzz'; have"),
        ("proxies.7=macs", "beyond the list's end; it has 4 entries"),
    ],
)
def test_unknown_key_is_looked_for_everywhere(override: str, expected: str, defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        spelling.check_keys(defaults, parse([override]), ["experiment"])
    assert expected in str(caught.value)


def test_known_keys_pass(defaults: dict[str, Any]) -> None:
    known = ["budget=3", "objective.latency_ms.bound=2", "proxies.0=macs", "+accuracy.more=1", "~limits.macs"]
    spelling.check_keys(defaults, parse(known), [])


def test_group_of_another_verb_is_named() -> None:
    text = complaint("space=toy", "model=m.onnx", verb="profile")
    assert text == "unknown group for nas profile 'space'; have cost, device, runtime."


def test_missing_values_are_named(tmp_path: Path) -> None:
    own = _own(tmp_path, "data/mine.yaml", "path: ???\nlicence: ???\nresolutions: [8]\n")
    assert complaint("data=mine", own=own) == (
        "data.licence, data.path are missing; give data.licence=VALUE data.path=VALUE."
    )
    assert complaint(verb="profile") == "model is missing; give nas profile MODEL.onnx."


def test_missing_study_lists_those_that_exist(tmp_path: Path) -> None:
    _own(tmp_path, "toy-digits-0/store.sqlite", "")
    assert complaint(f"folder={tmp_path}", verb="front") == (
        f"study is missing; give nas front STUDY. Found in {tmp_path}/: toy-digits-0."
    )


def test_sweep_without_multirun_says_how() -> None:
    assert (
        complaint("seed=1,2")
        == "'seed=1,2' holds several values; add -m to run once for each, or write seed=[...] for a list."
    )
    assert "[...]" not in complaint("space=toy,convnet")


# --- what a config must not do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "hydra.searchpath=[pkg://this]",
        "+hydra.callbacks.x._target_=os.system",
        "hydra/launcher=basic",
        "hydra.job.chdir=true",
        "++hydra.job_logging.handlers.x.class=subprocess.Popen",
        "~hydra.job",
    ],
)
def test_overrides_of_hydra_itself_are_refused(override: str) -> None:
    assert "changes Hydra itself" in complaint(override)


def _own(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


def test_own_folder_adds_members(tmp_path: Path) -> None:
    own = _own(tmp_path, "space/mine.yaml", "_target_: search_spaces.toy.Toy\nresolutions: [8]\n")
    config = composed("search", "space=mine", own=own)
    assert config["choices"]["space"] == "mine"
    assert config["study"].startswith("mine-digits-")
    assert "have convnet, decoder, hybrid, mine, " in complaint("space=mien", own=own)
    assert "Did you mean 'mine'?" in complaint("space=mien", own=own)


def test_yaml_tags_that_make_objects_are_refused(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    own = _own(tmp_path, "space/evil.yaml", f"_target_: !!python/object/apply:os.system ['touch {touched}']\n")
    assert "a YAML file cannot be read" in complaint("space=evil", own=own)
    assert not touched.exists()


def test_broken_yaml_is_named(tmp_path: Path) -> None:
    own = _own(tmp_path, "space/broken.yaml", "a: [1,\nb: 2\n")
    assert "broken.yaml" in complaint("space=broken", own=own)


def test_own_file_cannot_make_hydra_import_or_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap_package"
    trap.mkdir()
    (trap / "__init__.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (
        "# @package _global_\nhydra:\n  searchpath: ['pkg://trap_package']\n"
        "  callbacks:\n    x:\n      _target_: trap_package.Thing\n"
    )
    own = _own(tmp_path, "experiment/evil.yaml", text)
    with pytest.raises(ConfigError):
        composed("search", "experiment=evil", own=own)
    own = _own(tmp_path, "experiment/evil.yaml", re.sub(r"  searchpath.*\n", "", text))
    composed("search", "experiment=evil", own=own)
    assert not (tmp_path / "touched").exists()


def test_misspelt_override_inside_an_experiment(tmp_path: Path) -> None:
    own = _own(tmp_path, "experiment/e.yaml", "# @package _global_\ndefaults:\n  - override /space: tooy\n")
    assert "unknown space 'tooy'" in complaint("experiment=e", own=own)
    own = _own(tmp_path, "experiment/e.yaml", "# @package _global_\nbudgt: 3\n")
    assert "budgt" in complaint("experiment=e", own=own)
