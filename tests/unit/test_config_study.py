from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import nas
from nas.config import paths, schema
from nas.config.compose import Request, expand, resolve, show
from nas.config.paths import conf_dir, group_names
from nas.config.study import find_study, identity, resumed, studies, study_name
from nas.errors import ConfigError
from nas.testing.configs import composed


def _own(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


# --- multirun and --cfg ----------------------------------------------------------------------------------------------


def test_expand_makes_every_combination() -> None:
    jobs = expand(Request("search", ("seed=1,2", "space=toy,convnet", "budget=3")))
    assert [job.overrides for job in jobs] == [
        ("seed=1", "space=toy", "budget=3"),
        ("seed=1", "space=convnet", "budget=3"),
        ("seed=2", "space=toy", "budget=3"),
        ("seed=2", "space=convnet", "budget=3"),
    ]
    assert len({resolve(job)["study"] for job in jobs}) == 4


def test_expand_knows_ranges_and_keeps_quotes() -> None:
    jobs = expand(Request("search", ("seed=range(0,3)", "folder='a, b'")))
    assert [resolve(job)["seed"] for job in jobs] == [0, 1, 2]
    assert resolve(jobs[0])["folder"] == "a, b"


def test_expand_refuses_what_only_an_optimiser_could_sweep() -> None:
    with pytest.raises(ConfigError, match="seed=a,b,c"):
        expand(Request("search", ("seed=interval(0,3)",)))


def test_sweep_over_a_changeable_key_makes_two_studies() -> None:
    jobs = expand(Request("search", ("budget=3,4",)))
    assert len({resolve(job)["study"] for job in jobs}) == 2


def test_show_prints_what_may_still_be_missing() -> None:
    assert yaml.safe_load(show(Request("profile")))["model"] == "???"
    config = yaml.safe_load(show(Request("search", ("budget=7",))))
    assert config["budget"] == 7
    assert config["space"]["resolutions"] == "${oc.select:data.resolutions,[]}"
    assert "hydra" not in config


def test_show_a_part_and_resolved() -> None:
    assert yaml.safe_load(show(Request("search"), "limits")) == dict.fromkeys(
        ("macs", "params", "size_kib", "latency_ms", "memory_kib", "ttft_ms", "token_ms", "kv_cache_kib")
    )
    assert show(Request("search"), "budget") == "40\n"
    whole = yaml.safe_load(show(Request("search"), None, True))
    assert whole["space"]["resolutions"] == whole["data"]["resolutions"]
    with pytest.raises(ConfigError, match="Did you mean 'limits'"):
        show(Request("search"), "limit")


# --- studies ---------------------------------------------------------------------------------------------------------


def test_same_command_makes_the_same_name() -> None:
    name = composed()["study"]
    assert re.fullmatch(r"convnet-digits-[0-9a-f]{8}", name)
    assert composed()["study"] == name
    free = ["budget=99", "hours=2", "output=json", "progress=none", "folder=x", "rule=best_under_2ms"]
    assert composed("search", *free, "executor.workers=2", "tracking=none")["study"] == name


@pytest.mark.parametrize("override", ["seed=1", "limits.macs=5", "objective.latency_ms.bound=2", "sampler=random"])
def test_what_evaluations_depend_on_changes_the_name(override: str) -> None:
    assert composed("search", override)["study"] != composed()["study"]


def test_given_names_are_kept() -> None:
    assert composed("search", "study=mine")["study"] == "mine"
    assert composed("search", "resume=mine")["study"] is None


def test_identity_leaves_out_what_may_change() -> None:
    config = composed()
    assert {"budget", "hours", "folder", "output", "choices", "overrides", "study"}.isdisjoint(identity(config))
    assert {"space", "data", "seed", "device", "objective"} <= set(identity(config))


def test_study_name_is_a_safe_folder() -> None:
    assert re.fullmatch(r"a_b-own-[0-9a-f]{8}", study_name({"choices": {"space": "a/b", "data": None}}))


def test_find_study_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _own(tmp_path, "runs/toy-digits-1/store.sqlite", "")
    (tmp_path / "runs" / "mlflow").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_study("toy-digits-1", "runs") == Path("runs/toy-digits-1")
    assert find_study("runs/toy-digits-1", "runs") == Path("runs/toy-digits-1")
    assert find_study(str(tmp_path / "runs" / "toy-digits-1"), "elsewhere").is_dir()
    assert studies("runs") == ["toy-digits-1"]
    assert studies("nowhere") == []
    with pytest.raises(ConfigError, match="Did you mean 'toy-digits-1'"):
        find_study("toy-digits-2", "runs")


def test_studies_are_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(("old", "new")):
        _own(tmp_path, f"{name}/store.sqlite", "")
        os.utime(tmp_path / name, (age, age))
    assert studies(tmp_path) == ["new", "old"]


def test_resumed_takes_what_may_change_and_refuses_the_rest() -> None:
    stored = composed("search", "space=toy", "budget=10", "folder=there", "study=s")
    asked = composed("search", "resume=s", "budget=20", "output=json")
    merged = resumed(stored, asked)
    assert (merged["budget"], merged["output"], merged["folder"]) == (20, "json", "runs")
    assert merged["space"] == stored["space"]
    assert resumed(stored, composed("search", "resume=s"))["budget"] == 10
    assert resumed(stored, composed("search", "resume=s", "space=toy"))["space"] == stored["space"]
    with pytest.raises(ConfigError, match=r"seed differs from that of study 's'"):
        resumed(stored, composed("search", "resume=s", "seed=7"))
    with pytest.raises(ConfigError, match=r"space differs"):
        resumed(stored, composed("search", "resume=s", "space=convnet"))


# --- folders ---------------------------------------------------------------------------------------------------------


def _package(folder: Path) -> Path:
    (folder / "nas").mkdir(parents=True)
    return folder / "nas" / "__init__.py"


@pytest.mark.parametrize("place", ["nas/conf", "conf"])
def test_conf_dir_of_wheel_and_checkout(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas, "__file__", str(_package(tmp_path)))
    _own(tmp_path, f"{place}/search.yaml", "a: 1\n")
    assert conf_dir() == tmp_path / place


def test_conf_of_somebody_else_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas, "__file__", str(_package(tmp_path)))
    (tmp_path / "conf").mkdir()
    with pytest.raises(ConfigError, match="installation is incomplete"):
        conf_dir()


def test_own_config_dir_must_be_a_folder(tmp_path: Path) -> None:
    assert paths.own_config_dir(tmp_path) == tmp_path
    with pytest.raises(ConfigError, match="is not a folder"):
        paths.own_config_dir(tmp_path / "none")


def test_groups_are_folders(tmp_path: Path) -> None:
    own = _own(tmp_path, "extra/one.yaml", "a: 1\n")
    assert set(group_names(own)) - set(group_names()) == {"extra"}


def test_help_of_every_key_is_there() -> None:
    texts: Callable[[str], list[str]] = lambda verb: [text for _, text in schema.keys(verb).values()]  # noqa: E731
    for verb in schema.ROOTS:
        assert all(texts(verb)), verb
        assert all(schema.groups(verb).values()), verb
