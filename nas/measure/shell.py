"""What a board without Python runs: a POSIX shell's script that owns a folder for one session, and what is sent to it.

The script says which machine it is on, and only then is anything sent. It reads one bundle up to the end of its input,
cuts it into files, checks their sizes and digests, waits for its turn, runs the program under limits, says how that
ended and what it printed, and removes the folder. An empty line each second tells it whether somebody still listens.
"""

from __future__ import annotations

import hashlib
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Files begin at whole blocks of the bundle, so that dd cuts them out of it quickly and exactly.
BLOCK_BYTES = 4096
# A login shell of any kind passes it on in single quotes, so there is no single quote and no backslash in it.
_FACTS = """T=$1
echo "$T isa $(uname -m)"
echo "$T kernel $(uname -r)"
echo "$T processor $(uname -p 2>/dev/null)"
echo "$T governor $(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"
echo "$T cpuinfo"; cat /proc/cpuinfo
echo "$T facts"
"""
_SESSION = """umask 077
H=${TMPDIR:-/tmp}; D=$H/hwnas-$T; L=$H/hwnas-turn-$(id -u); M=; K=; Q=$2; X=$3; V=$4; G=$5; A=$6
leave() { test -z "$K" || kill -9 $K; cd /; rm -rf "$D"; test -z "$M" || rm -rf "$L"; }
trap "" PIPE
trap leave EXIT
trap "exit 1" HUP INT TERM
mkdir "$D" && cd "$D" && cat > bundle || { echo "$T refused cannot write into $D"; exit 1; }
shift 6; B=0
while test $# -ge 4; do
  N=$(($2/4096)); R=$(($2%4096))
  test $N -eq 0 || dd if=bundle of="$1" bs=4096 skip=$B count=$N 2>/dev/null
  test $R -eq 0 || dd if=bundle bs=1 skip=$(((B+N)*4096)) count=$R 2>/dev/null >> "$1"
  B=$((B+($2+4095)/4096))
  S=$(sha256sum < "$1" 2>/dev/null) || S=$(openssl dgst -sha256 -r < "$1" 2>/dev/null) || S=$(cksum < "$1")
  test "$(wc -c < "$1")" -eq $2 || S=
  case "$S" in "$3"*|"$4 $2"*) ;; *) echo "$T damaged $1 $S"; exit 1;; esac
  shift 4
done
rm bundle
chmod 700 nasq-run
W=0
until mkdir "$L" 2>/dev/null; do
  P=; test ! -e "$L/pid" || read P < "$L/pid"
  test -z "$P" || kill -0 "$P" 2>/dev/null || rm -rf "$L"
  test $W -lt $Q || { echo "$T busy $L"; exit 1; }
  echo 2>/dev/null || exit 1
  W=$((W+1)); sleep 1
done
M=1; echo $$ > "$L/pid"
C=0; while read N R; do test "$N" != Cpus_allowed_list: || C=${R##*[,-]}; done < /proc/self/status
test $G != last || G=$C
echo "$T core $G"
echo "$T before"; cat /proc/stat
( ulimit -c 0; ulimit -f 4096; ulimit -v $V; exec env $A --core $G ) > out 2> err < /dev/null & K=$!
( W=0; while test $W -lt $X; do
  echo 2>/dev/null || break
  sleep 1 > /dev/null 2>&1; W=$((W+1))
  done
  test $W -lt $X || : > late; kill -9 $K ) 2>/dev/null & W=$!
wait $K; S=$?; K=
kill $W 2>/dev/null
test ! -e late || S=late
echo "$T after"; cat /proc/stat
echo "$T err"; dd if=err bs=2000 count=1 2>/dev/null; echo
echo "$T out"; dd if=out bs=65536 count=16 2>/dev/null; echo
echo "$T ended $S"
leave; M=; trap - EXIT
echo "$T done"
"""


@dataclass(frozen=True)
class Job:
    """What is sent and run.

    Args:
        files: plain name to content; ``nasq-run`` is the program.
        arguments: of the program, words without blanks.
        queue_s: how long to wait for another session on the board.
        most_s: seconds that the program may take.
        memory_mib: address space that it may take.
        core: processor that it is pinned to; None takes the last one allowed there.
        isa: level of kernels that it is held to, or None.
    """

    files: Mapping[str, bytes]
    arguments: Sequence[str]
    queue_s: int
    most_s: int
    memory_mib: int
    core: int | None = None
    isa: str | None = None


def facts_command(token: str) -> str:
    """Return the line for a login shell that only says which machine it is on.

    Args:
        token: begins every line that the script says itself; nobody can guess it.
    """
    return _command(_FACTS, [token])


def session_command(token: str, job: Job) -> str:
    """Return the line for a login shell that takes ``bundle(job.files)`` and runs the program among them.

    Args:
        token: as in ``facts_command``.
        job: what is run.
    """
    level = [f"NAS_FORCE_ISA={job.isa}"] if job.isa else []
    core = "last" if job.core is None else str(job.core)
    limits = [str(job.queue_s), str(job.most_s), str(job.memory_mib * 1024)]
    told = [token, *limits, core, " ".join([*level, "./nasq-run", *job.arguments])]
    for name, content in job.files.items():
        told += [name, str(len(content)), hashlib.sha256(content).hexdigest(), str(cksum(content))]
    return _command(_FACTS + _SESSION, told)


def bundle(files: Mapping[str, bytes]) -> bytes:
    """Return the files one behind the other, each filled up to whole blocks."""
    return b"".join(content + bytes(-len(content) % BLOCK_BYTES) for content in files.values())


def cksum(content: bytes) -> int:
    """Return the checksum of POSIX ``cksum``, which every board has: CRC-32, bits the other way round than zlib's."""
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "little")
    mirrored = (content + length).translate(_MIRRORED)
    return int(f"{zlib.crc32(mirrored, 0xFFFFFFFF):032b}"[::-1], 2)


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _command(script: str, arguments: Sequence[str]) -> str:
    return f"exec sh -c {shlex.quote(script)} hwnas {shlex.join(arguments)}"
