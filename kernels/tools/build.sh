#!/usr/bin/env bash
# Builds a C++ program out of the kernels without Python: tools/build.sh OUTPUT COMPILER "FLAGS" MAIN.cc...
#
# Objects lie in OBJECTS, or in OUTPUT.objects, and are compiled again when a source or header is newer or flags differ. What
# is not listed in sources.txt (the program's own files) is compiled for the baseline. JOBS compilers run at a time, 2 unless
# told; LINK and LIBRARIES go to the linker, before and behind the objects.
set -euo pipefail

output=$1 compiler=$2 flags=$3
shift 3
objects_folder=${OBJECTS:-$output.objects}
mkdir -p "$(dirname "$output")" "$objects_folder"
output=$(realpath "$output")
objects_folder=$(realpath "$objects_folder")
# One at a time where programs share objects.
exec 9>"$objects_folder/lock"
flock 9
cd "$(dirname "$0")/.."
case $($compiler -dumpmachine) in
  x86_64*) architecture=x86_64 ;;
  aarch64*) architecture=aarch64 ;;
  *) architecture=other ;;
esac
common="-std=c++17 -O3 -Wall -Wextra -Werror -Wno-psabi -Wno-uninitialized -Wno-maybe-uninitialized -ffp-contract=off -Iinclude $flags"
newest=$(find include src runner tests -name '*.h' -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-)
jobs=()
objects=()
# Objects of other flags are of no use.
[ "$(cat "$objects_folder/made-with" 2>/dev/null)" = "$compiler $common" ] || rm -f "$objects_folder/"*.o
echo "$compiler $common" >"$objects_folder/made-with"

compile() {  # FILE FLAGS
  local object
  object="$objects_folder/$(echo "$1" | tr / _).o"
  objects+=("$object")
  if [ ! "$object" -nt "$1" ] || [ ! "$object" -nt "$newest" ] || [ ! "$object" -nt sources.txt ]; then
    jobs+=("$compiler $common $2 -c $1 -o $object")
  fi
}

while read -r file where own; do
  case $file in '#'* | '') continue ;; esac
  if [ "$where" = any ] || [ "$where" = "$architecture" ]; then compile "$file" "$own"; fi
done <sources.txt
# Less optimized: their speed does not matter, and gcc 12 for ARM fails on the loops of some tests at -O3.
for file in "$@"; do compile "$file" -O1; done
if [ ${#jobs[@]} -gt 0 ]; then printf '%s\n' "${jobs[@]}" | xargs -P "${JOBS:-2}" -I{} sh -c '{}'; fi
# shellcheck disable=SC2086
$compiler $flags ${LINK:-} "${objects[@]}" -o "$output" ${LIBRARIES:-}
