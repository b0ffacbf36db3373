#!/usr/bin/env bash
# Writes constraints.txt: the exact version of every package, from a clean environment with all extras.
#
# Usage: scripts/lock.sh [PYTHON]
# Newest versions that pyproject.toml allows are taken, but for the pins below. Look at the difference before you commit
# it, and run the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
pins=("torch==2.13.0")
# What a build needs in its own, isolated environment; cmake and ninja only where the machine has none.
build_tools=(pip setuptools scikit-build-core nanobind cmake ninja)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '%s\n' "${pins[@]}" >"$work/pins.txt"
"$python" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet --root-user-action=ignore --upgrade "${build_tools[@]}"
# The project itself is not built: its requirements are read from pyproject.toml.
"$work/venv/bin/python" - >"$work/requirements.txt" <<'PY'
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = [need for needs in project["optional-dependencies"].values() for need in needs]
print("\n".join([*project["dependencies"], *extras]))
PY
"${pip[@]}" install --quiet --root-user-action=ignore --constraint "$work/pins.txt" --requirement "$work/requirements.txt"

{
  cat <<'HEADER'
# Exact versions of everything that an installation or a build of hwnas may pull in, for Python 3.11 to 3.13.
# Made by `make lock` (scripts/lock.sh): a clean environment, all extras, the newest versions that pyproject.toml allows,
# torch pinned. Do not edit by hand. Local version tags (+cpu) are dropped, so that any build of a version satisfies it.
HEADER
  "${pip[@]}" freeze --all | grep -v '^hwnas' | sed -E 's/\+[A-Za-z0-9.]+$//' | sort -f
} >"$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt
