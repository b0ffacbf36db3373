"""A wheel and an editable install both work from another folder: the extension, the configs and the command."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import latency_models, nas, search_spaces
from nas import _kernels
from nas.config.paths import conf_dir
from nas.runtime.custom_ops import library, session_options

assert "portable" in _kernels.available_isas()
assert (conf_dir() / "search.yaml").is_file()
session_options()  # ONNX Runtime takes the library of operators
print(library())
for module in (nas, _kernels, search_spaces, latency_models):
    print(module.__file__)
print(conf_dir())
"""


def _call(command: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _environment(path: Path) -> dict[str, str]:
    """Return this process's environment without what would let a source checkout be found by chance."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "HOME": str(path), "PATH": f"{path / 'bin'}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout with the build tools that are installed: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    _call([*build, "--wheel-dir", str(folder), str(ROOT)], cwd=folder)
    (built,) = folder.glob("hwnas-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; the packages that hwnas needs are borrowed from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    _call([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], cwd=folder)
    # A plain path line: the borrowed folder's own .pth files, this checkout's editable install among them, stay unread.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"nas", "search_spaces", "latency_models", f"{wheel.name.split('-cp')[0]}.dist-info"}
    assert len([name for name in names if name.startswith("nas/_kernels.") and name.endswith(".so")]) == 1
    assert {"nas/_kernels.pyi", "nas/py.typed", "nas/lib/README.md", "nas/lib/libhwnas_ops.so"} <= set(names)
    configs = {f"nas/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert configs == {name for name in names if name.startswith("nas/conf/")}
    assert not [name for name in names if "__pycache__" in name]


def test_wheel_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    lines = _call([str(installed / "bin/python"), "-c", PROBE], cwd=tmp_path, env=_environment(installed)).split()
    assert all(Path(line).is_relative_to(installed) for line in lines), lines
    assert lines[-1].endswith("nas/conf")


def test_command_of_the_wheel_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    said = _call([str(installed / "bin/nas"), "devices"], cwd=tmp_path, env=_environment(installed))
    assert "local" in said


def test_editable_install_works_from_another_folder(tmp_path: Path) -> None:
    environment = _environment(Path(sys.prefix))
    lines = _call([sys.executable, "-c", PROBE], cwd=tmp_path, env=environment).split()
    assert all(Path(line).is_relative_to(ROOT) for line in lines), lines
    assert lines[-1] == str(ROOT / "conf")
    said = _call([str(Path(sys.prefix) / "bin/nas"), "devices"], cwd=tmp_path, env=environment)
    assert "local" in said
