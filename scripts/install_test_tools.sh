#!/usr/bin/env bash
# Installs what the tests need beyond Python, where it is missing: headless Chromium, to look at pages; an sshd, to
# measure over ssh on loopback; QEMU's user mode and mmdebstrap, to run a model on an emulated Arm processor; a compiler
# for Arm, whose kernels run there.
#
# Debian's packages, as root or by sudo without a password. Where that cannot be, says what is missing and lets the tests
# skip what needs it; with CI=true a missing tool fails instead.
set -u
cd "$(dirname "$0")/.."

# One "COMMAND PACKAGE" per line.
tools='chromium chromium
ssh openssh-client
sshd openssh-server
qemu-aarch64 qemu-user
mmdebstrap mmdebstrap
aarch64-linux-gnu-g++ g++-aarch64-linux-gnu'
PATH=$PATH:/usr/sbin # where sshd lies

# The file system of an emulated Arm processor, where it can be made; tests that need it say so when it is missing.
arm64_root() {
  scripts/arm64_root.sh && return
  echo "hwnas: no emulated Arm processor: scripts/arm64_root.sh failed" >&2
  [ "${CI:-}" = true ] && exit 1
  return 0
}

missing=()
while read -r command package; do
  command -v "$command" >/dev/null || missing+=("$package")
done <<<"$tools"
[ ${#missing[@]} -eq 0 ] && {
  arm64_root
  exit 0
}

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
  echo "hwnas: installing ${missing[*]} for the tests" >&2
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -qq >&2 &&
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" fonts-dejavu-core >/dev/null
fi

still=()
while read -r command package; do
  command -v "$command" >/dev/null || still+=("$package")
done <<<"$tools"
[ ${#still[@]} -eq 0 ] && {
  arm64_root
  exit 0
}
echo "hwnas: the tests need ${still[*]}, which could not be installed; on Debian: apt-get install ${still[*]}" >&2
[ "${CI:-}" = true ] && exit 1
echo "hwnas: tests that need it will be skipped" >&2
exit 0
