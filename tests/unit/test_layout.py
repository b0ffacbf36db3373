"""What the repository promises about itself: versions that agree, a lock that fits, and rules no linter knows."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import nas

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _requirements() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    lines = {
        *PROJECT["project"]["dependencies"],
        *PROJECT["build-system"]["requires"],
        *(need for e in extras for need in e),
    }
    return [Requirement(line) for line in sorted(lines)]


def _locked() -> dict[str, Requirement]:
    lines = (line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def _pinned_version(pin: Requirement) -> Version:
    (specifier,) = pin.specifier
    assert specifier.operator == "==", f"{pin} is not an exact version"
    return Version(specifier.version)


def test_version_is_the_same_everywhere() -> None:
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert PROJECT["project"]["version"] == nas.__version__ == newest.group(1)


def test_lock_pins_torch() -> None:
    assert str(_locked()["torch"]) == "torch==2.13.0"


def test_lock_has_exact_versions_of_any_build() -> None:
    for pin in _locked().values():
        assert _pinned_version(pin).local is None, f"{pin} asks for one particular build"


@pytest.mark.parametrize("requirement", _requirements(), ids=str)
def test_lock_satisfies_every_declared_range(requirement: Requirement) -> None:
    pin = _locked().get(canonicalize_name(requirement.name))
    assert pin is not None, f"{requirement.name} is not locked; run make lock"
    assert requirement.specifier.contains(_pinned_version(pin)), f"{pin} is outside {requirement}; run make lock"


def test_kernels_hold_no_python() -> None:
    assert list((ROOT / "kernels").rglob("*.h"))
    # An import package of that name would shadow one on the package index.
    assert not [path for path in (ROOT / "kernels").rglob("*.py") if "CMakeFiles" not in path.parts]


def test_kernels_are_built_for_the_baseline() -> None:
    assert "-march=native" not in (ROOT / "kernels/CMakeLists.txt").read_text()


def test_every_kernel_source_is_compiled() -> None:
    folder = ROOT / "kernels"
    lists = [folder / "CMakeLists.txt", folder / "sources.txt", *(folder / "tools").iterdir()]
    listed = set(re.findall(r"[\w/]+\.cc", "\n".join(path.read_text() for path in lists)))
    present = {str(path.relative_to(folder)) for path in folder.rglob("*.cc") if "CMakeFiles" not in path.parts}
    # Programs of their own, which the Makefile and the tests build by kernels/tools/build.sh.
    programs = {
        path
        for path in present
        if Path(path).name in ("test.cc", "bench.cc", "fuzz.cc") or path.startswith(("tests/", "runner/"))
    }
    assert present - programs <= listed
    assert {path for path in listed if path.startswith("src/")} <= present


def test_test_files_have_names_of_their_own() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("package", PROJECT["tool"]["scikit-build"]["wheel"]["packages"])
def test_packages_carry_their_types_and_no_catch_all(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    assert [path for path in (ROOT / package).rglob("*.py") if path.stem in {"utils", "util", "helpers", "misc"}] == []
