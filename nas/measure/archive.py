"""The code that a board needs, as one archive that its Python runs; it is sent anew with every session."""

from __future__ import annotations

import hashlib
import io
import shlex
import zipfile
from functools import lru_cache
from pathlib import Path

import nas

# What nas.measure.board imports of this package, packages included; a test runs it with numpy and onnxruntime alone.
MODULES = (
    "__init__",
    "device",
    "errors",
    "measure/__init__",
    "measure/board",
    "measure/energy/__init__",
    "measure/energy/choose",
    "measure/energy/command",
    "measure/energy/hwmon",
    "measure/energy/source",
    "measure/energy/windows",
    "measure/energy/zeus_cpu",
    "measure/energy/zeus_gpu",
    "measure/harness",
    "measure/host",
    "measure/runner",
    "measure/settings",
    "measure/wire",
    "runtime/__init__",
    "runtime/inputs",
    "runtime/onnx_runtime",
)
_MAIN = "from nas.measure.board import main\n\nmain()\n"
# It reads the archive and not a byte more: what follows is for the runner. Login shells differ in how they quote, so
# there is no quote, dollar sign or backslash in it but the double quotes of its strings.
_BOOTSTRAP = """import hashlib, sys, tempfile
size, digest, lifetime, queue = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
stream, code = open(0, "rb", 0, closefd=False), b""
while len(code) < size:
    piece = stream.read(min(65536, size - len(code)))
    if not piece:
        sys.exit("the link was cut while the code of the runner was sent")
    code += piece
if hashlib.sha256(code).hexdigest() != digest:
    sys.exit("the code of the runner arrived damaged")
if sys.version_info < (3, 11):
    sys.exit("Python " + sys.version.split()[0] + " is too old; expected 3.11 or newer")
folder = tempfile.mkdtemp(prefix="hwnas-")
with open(folder + "/code.zip", "xb") as file:
    file.write(code)
sys.path[0] = folder + "/code.zip"
from nas.measure.board import supervise
sys.exit(supervise(folder, folder + "/code.zip", lifetime, queue))
"""


@lru_cache(maxsize=1)
def runner_archive() -> bytes:
    """Return the archive, equal bytes for equal sources."""
    root = Path(nas.__file__).resolve().parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for module in MODULES:
            archive.writestr(zipfile.ZipInfo(f"nas/{module}.py"), (root / f"{module}.py").read_bytes())
        archive.writestr(zipfile.ZipInfo("__main__.py"), _MAIN)
    return buffer.getvalue()


def start_arguments(lifetime_s: float, queue_s: float) -> list[str]:
    """Return what follows the name of the interpreter: the program that waits for ``runner_archive`` on its input.

    Args:
        lifetime_s: the longest that a session may last; 0 starts no second process that would end it.
        queue_s: how long to wait for another session on the same board; below 0 there is nothing to wait for.
    """
    code = runner_archive()
    digest = hashlib.sha256(code).hexdigest()
    return ["-u", "-c", _BOOTSTRAP, str(len(code)), digest, f"{lifetime_s:g}", f"{queue_s:g}"]


def shell_command(python: str, arguments: list[str]) -> str:
    """Return the line that a login shell on the board runs."""
    return f"exec {shlex.join([python, *arguments])}"
