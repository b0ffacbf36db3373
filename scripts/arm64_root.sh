#!/usr/bin/env bash
# Makes a folder with a 64-bit Arm Python, numpy and onnxruntime, for device=emulated (QEMU's user mode).
#
# Usage: scripts/arm64_root.sh [FOLDER]      (by default arm64 in the user's cache folder; what is there already is kept)
# Debian's packages by mmdebstrap, unpacked and never configured, so no Arm program runs; wheels by pip, in the versions
# that constraints.txt names. Needs mmdebstrap, and root or user namespaces. About a minute and 250 MB the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/hwnas/arm64}
python=${PYTHON:-python3}
[ -x .venv/bin/python ] && python=.venv/bin/python
pins=$(grep -E '^(numpy|onnxruntime)==' constraints.txt | sort)
done_mark=$target/.made-with
[ -f "$done_mark" ] && [ "$(cat "$done_mark")" = "$pins" ] && exit 0

command -v mmdebstrap >/dev/null || {
  echo "hwnas: mmdebstrap is missing; on Debian: apt-get install mmdebstrap" >&2
  exit 1
}
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "hwnas: making an Arm file system in $target; this takes a minute" >&2

mmdebstrap --quiet --variant=extract --architectures=arm64 \
  --include=python3-minimal,libpython3-stdlib,libstdc++6,libgomp1 bookworm "$work/root"
# Debian's bookworm has Python 3.11.
platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64)
# shellcheck disable=SC2086  # one requirement per word
"$python" -m pip --disable-pip-version-check -qq download --no-deps --only-binary=:all: "${platforms[@]}" \
  --python-version 3.11 --dest "$work/wheels" $pins
"$python" - "$work" <<'PY'
import pathlib
import sys
import zipfile

work = pathlib.Path(sys.argv[1])
for wheel in (work / "wheels").glob("*.whl"):
    zipfile.ZipFile(wheel).extractall(work / "root/opt/hwnas")
# QEMU shows the processor of this machine; what reads this file gets that of a Cortex-A76 class core.
(work / "root/proc").mkdir(exist_ok=True)
(work / "root/proc/cpuinfo").write_text(
    "processor\t: 0\nmodel name\t: QEMU user mode, Cortex-A76 class\nBogoMIPS\t: 100.00\n"
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n"
)
PY
# Nothing of these is ever read, and some of it belongs to root.
rm -rf "$work/root/usr/share/doc" "$work/root/usr/share/man" "$work/root/var" "$work/root/dev"
printf '%s\n' "$pins" >"$work/root/.made-with"
rm -rf "$target"
mv "$work/root" "$target"
