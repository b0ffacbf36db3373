#!/usr/bin/env bash
# Fails with a reason unless the given Python and a C++ compiler can build hwnas.
#
# Usage: scripts/check_python.sh PYTHON
set -u
python=$1

fail() {
  printf 'hwnas: %s\n' "$*" >&2
  exit 1
}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
  fail "'$python' does not run; expected Python 3.11, 3.12 or 3.13. Name one: make PYTHON=python3.11 ..."
case $version in
  3.11 | 3.12 | 3.13) ;;
  *) fail "'$python' is Python $version; expected 3.11, 3.12 or 3.13. Name one: make PYTHON=python3.11 ..." ;;
esac
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "'$python' has no venv module; expected a full Python. On Debian: apt-get install python3-venv"
command -v "${CXX:-c++}" >/dev/null ||
  fail "no C++ compiler '${CXX:-c++}'; expected gcc 12 or newer. On Debian: apt-get install g++"
