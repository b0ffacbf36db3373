"""Remakes the readings of this machine and the tables of the README: remake.py, or remake.py --table for the tables alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main() -> None:
    if sys.argv[1:] != ["--table"]:
        subprocess.run([sys.executable, FOLDER.parents[1] / "scripts" / "bench_kernels.py"], check=True)
    tables = "\n".join(path.read_text() for path in sorted(FOLDER.glob("????????????.md")))
    readme = FOLDER / "README.md"
    marked = f"<!-- table -->\n{tables}<!-- /table -->"
    readme.write_text(re.sub(r"<!-- table -->.*<!-- /table -->", lambda _: marked, readme.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main()
