from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper, save_model

import nas

ROOT = Path(nas.__file__).resolve().parent.parent


def call(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``nas`` as a user does, in a folder that is not the checkout."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "nas.cli", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(cwd / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("words", [["--help"], ["search", "--help"], ["--version"], ["serch"]])
def test_help_and_mistakes_wait_for_no_heavy_import(words: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom nas.cli import main\n"
        f"main({words!r})\n"
        "heavy = {'torch', 'numpy', 'hydra', 'omegaconf', 'mlflow', 'optuna', 'onnxruntime', 'onnx', 'rich', 'yaml'}\n"
        "print('imported:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "imported: []"


@pytest.mark.parametrize("words", [["devices", "measure=false", "output=json"], ["search", "--cfg", "job"]])
def test_light_verbs_import_neither_torch_nor_mlflow(words: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom nas.cli import main\n"
        f"assert main({words!r}) == 0\n"
        "print('imported:', sorted({'torch', 'mlflow', 'optuna', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "imported: []"


def test_mistake_is_one_line_on_standard_error(tmp_path: Path) -> None:
    done = call("search", "budgt=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "nas: unknown key 'budgt'. Did you mean 'budget'? --help lists the groups and keys.\n"
    assert list(tmp_path.iterdir()) == []


def test_hydras_own_main_is_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(
        "open('touched', 'w')\n\n\ndef call(*args, **kwargs):\n    open('touched', 'w')\n"
    )
    for override in (
        "+hydra.callbacks.x._target_=evil.call",
        "hydra.searchpath=[pkg://evil]",
        "hydra.sweeper._target_=evil.call",
    ):
        done = call("search", "-m", override, "seed=1,2", cwd=tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
        assert done.returncode == 2
        assert "changes Hydra itself" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["evil.py"]


def test_space_of_a_config_that_names_foreign_code_is_refused(tmp_path: Path) -> None:
    """The whole way from a user's YAML to the constructor, which must not be called."""
    folder = tmp_path / "own" / "runtime"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(f"_target_: pathlib.Path.touch\nself: {tmp_path / 'touched'}\n")
    done = call("devices", "--config-dir", "own", "runtime=evil", "measure=false", cwd=tmp_path)
    assert done.returncode == 2
    assert "runtime._target_=pathlib.Path.touch is refused" in done.stderr
    assert not (tmp_path / "touched").exists()


def test_profile_measures_latency_and_memory(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Sin", ["input"], ["output"])], "tiny", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "models").mkdir()
    save_model(model, str(tmp_path / "models" / "tiny.onnx"))
    quick = ["cost.timing.max_seconds=0.2", "cost.timing.tries=1", "cost.timing.memory_loads=1"]
    done = call("profile", "models/tiny.onnx", "runs=3", "output=json", *quick, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["saved"] == "models/tiny.profile.json"
    assert (tmp_path / "models" / "tiny.profile.json").is_file()
    assert report["costs"]["latency_ms"]["provenance"] == "measured"
    assert report["costs"]["latency_ms"]["count"] >= 5
    assert report["costs"]["memory_kib"]["unit"] == "KiB"
    assert report["operators"][0]["kind"] == "Sin"


def test_devices_measures_peaks_once(tmp_path: Path) -> None:
    done = call("devices", "device=local", "output=json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (local,) = json.loads(done.stdout.splitlines()[-1])["devices"]
    assert local["peaks"]["source"].startswith("measured")
    again = call("devices", "device=local", "output=json", cwd=tmp_path)
    assert json.loads(again.stdout.splitlines()[-1])["devices"][0]["peaks"] == local["peaks"], (
        "the second call reads them"
    )
