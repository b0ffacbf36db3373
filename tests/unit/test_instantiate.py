from __future__ import annotations

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nas.config import instantiate as module
from nas.config.instantiate import fits, instantiate
from nas.device import Device, Peaks
from nas.errors import ConfigError
from nas.objective import Objective

PEAKS = {
    "_target_": "nas.device.Peaks",
    "fp32_gmacs": 1,
    "int8_gmacs": 2,
    "bandwidth_gbs": 3.5,
    "op_overhead_us": 1.0,
    "source": "test",
}

ATTACKS = [
    "numpy.load",
    "pathlib.Path.unlink",
    "pathlib.Path",
    "os.system",
    "subprocess.Popen",
    "subprocess.run",
    "builtins.eval",
    "builtins.exec",
    "eval",
    "hydra.utils.call",
    "hydra.utils.instantiate",
    "hydra._internal.utils._locate",
    "pickle.loads",
    "torch.load",
    "nas",
    "nas.",
    "nas..device.Device",
    ".nas.device.Device",
    "nasty.device.Device",
    "nas_evil.Thing",
    "search_spaces_evil.Thing",
    # paths that begin in our packages and lead out of them
    "nas.device.os.system",
    "nas.device.Path",
    "nas.device.Path.unlink",
    "nas.device.platform.popen",
    "nas.device.json.loads",
    "nas.device.hashlib",
    "nas.device.cached_property",
    "nas.store.sqlite3.connect",
    "nas.plots.Path.unlink",
    "nas.cli.os.system",
    "nas.cli.main",
    "nas.cli.__main__.main",
    "nas.config.instantiate.instantiate",
    "nas.config.instantiate.importlib.import_module",
    "nas.executor.spawned.SpawnedExecutor",
    # private names, methods, functions, exceptions and protocols of our own
    "nas.device.__builtins__.eval",
    "nas.__init__.Device",
    "nas.device._cpuinfo_fields",
    "nas.device.local_fingerprint",
    "nas.architecture.Architecture.from_dict",
    "nas.errors.NasError",
    "nas.protocols.Runtime",
]


@pytest.mark.parametrize("target", ATTACKS)
def test_target_outside_the_allow_list_is_refused(target: str) -> None:
    with pytest.raises(ConfigError):
        instantiate({"_target_": target})


@pytest.mark.parametrize("target", ATTACKS)
def test_nested_target_outside_the_allow_list_is_refused(target: str) -> None:
    with pytest.raises(ConfigError):
        instantiate({"a": [{"b": {"_target_": target}}]})


@pytest.mark.parametrize("target", [7, None, ["nas.device.Device"], "nas device.Device", "nas.device.Device()"])
def test_target_that_is_no_dotted_path_is_refused(target: object) -> None:
    with pytest.raises(ConfigError, match="dotted path"):
        instantiate({"_target_": target})


def _trap(folder: Path, name: str) -> Path:
    """Write a module that leaves a file behind when it is imported."""
    folder.mkdir(exist_ok=True)
    touched = folder / "touched"
    (folder / f"{name}.py").write_text(
        f"import pathlib\npathlib.Path({str(touched)!r}).touch()\n\n\nclass Thing:\n    def __init__(self, x=1):\n"
        "        self.x = x\n"
    )
    return touched


def test_foreign_module_is_refused_before_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched = _trap(tmp_path, "trap_foreign")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="refused"):
        instantiate({"_target_": "trap_foreign.Thing"})
    assert not touched.exists()
    assert "trap_foreign" not in sys.modules


def test_plugin_named_by_the_caller_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched = _trap(tmp_path, "trap_plugin")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = instantiate({"_target_": "trap_plugin.Thing", "x": 3}, plugins=["trap_plugin"])
    assert made.x == 3
    assert touched.exists()


def test_registered_plugin_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _trap(tmp_path, "trap_registered")
    info = tmp_path / "trap-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trap\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hwnas.plugins]\ntrap = trap_registered\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module._registered.cache_clear()
    try:
        assert instantiate({"_target_": "trap_registered.Thing"}).x == 1
    finally:
        module._registered.cache_clear()


def test_plugin_cannot_unlock_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _trap(tmp_path, "trap_narrow")
    monkeypatch.syspath_prepend(str(tmp_path))
    for target in ("trap_narrow.pathlib.Path", "trap_narrowed.Thing", "os.system", "trap_narrow.pathlib"):
        with pytest.raises(ConfigError):
            instantiate({"_target_": target}, plugins=["trap_narrow"])


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_convert_", "_recursive_", "_mode_", "_anything_"])
def test_special_keys_of_hydra_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        instantiate({**PEAKS, key: True})


def test_extra_must_not_smuggle_a_target() -> None:
    made = instantiate({"_target_": "nas.device.Device", "name": "x", "isa": "y", "cores": 1}, peaks={"_target_": "os"})
    assert made.peaks == {"_target_": "os"}  # passed through as it is, never looked up


def test_nested_nodes_become_objects_and_containers_plain() -> None:
    config = OmegaConf.create(
        {
            "two": [1, 2],
            "device": {
                "_target_": "nas.device.Device",
                "name": "x",
                "isa": "y",
                "cores": "${two.1}",
                "affinity": "${two}",
                "peaks": PEAKS,
            },
        }
    )
    device = instantiate(config.device)
    assert device == Device("x", "y", 2, affinity=[1, 2], peaks=Peaks(1, 2, 3.5, 1.0, "test"))  # type: ignore[arg-type]
    assert type(device.affinity) is list
    assert instantiate(config)["two"] == [1, 2]


def test_extra_arguments_win_over_the_node() -> None:
    made = instantiate({"_target_": "nas.objective.Objective", "metric": "a", "direction": "minimize"}, metric="b")
    assert made == Objective("b", "minimize")


def test_extra_without_target_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no _target_"):
        instantiate({"a": 1}, path="space", task=None)


def test_unknown_argument_gets_its_spelling() -> None:
    node = {**PEAKS, "bandwith_gbs": 1.0}
    with pytest.raises(
        ConfigError, match=r"device\.peaks: nas\.device\.Peaks has no argument 'bandwith_gbs'.*'bandwidth_gbs'\?"
    ):
        instantiate({"device": {"peaks": node}})


def test_missing_argument_is_named() -> None:
    with pytest.raises(ConfigError, match=r"needs direction; give objective\.direction=VALUE"):
        instantiate({"_target_": "nas.objective.Objective", "metric": "a"}, path="objective")


@pytest.mark.parametrize(
    ("key", "value"), [("fp32_gmacs", "fast"), ("fp32_gmacs", True), ("source", 3), ("source", None)]
)
def test_argument_of_a_wrong_type_is_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"peaks\.{key}=.*expected (float|str)"):
        instantiate({**PEAKS, key: value}, path="peaks")


def test_refusal_of_the_constructor_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="maximize or minimize"):
        instantiate({"_target_": "nas.objective.Objective", "metric": "a", "direction": "minimize"}, direction="up")


def test_misspelt_class_gets_its_spelling() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'nas\.device\.Device'"):
        instantiate({"_target_": "nas.device.Devise"})
    with pytest.raises(ConfigError, match=r"no module nas\.devise"):
        instantiate({"_target_": "nas.devise.Device"})


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1, float, True),
        (1.5, int, False),
        (None, int | None, True),
        ("a", int | None, False),
        ([1, 2], list[int], True),
        ([1, "a"], list[int], False),
        ([1, 2], tuple[int, ...], True),
        ([1, "a"], tuple[int, str], True),
        ("ab", list[str], False),
        ({"a": 1}, dict[str, int], True),
        ([1], dict[str, int], False),
        (object(), object, True),
    ],
)
def test_fits(value: object, hint: object, expected: bool) -> None:
    assert fits(value, hint) is expected
