"""What every experiment shares: running searches, reading them back, and writing tables between a README's marks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def search(*words: str) -> dict[str, Any]:
    """Run ``nas search`` with these words, or go on with it, and return the JSON object of its last line."""
    command = [sys.executable, "-m", "nas", "search", *words, "output=json"]
    print("$ nas search", *words, file=sys.stderr, flush=True)
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return report


def card(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model card of what a search shipped, or an empty dictionary if nothing shipped."""
    if report["export"] is None:
        return {}
    found: dict[str, Any] = json.loads((Path(report["export"]) / "model_card.json").read_text())
    return found


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; numbers are to be formatted by the caller."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def write_between(readme: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a README."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = readme.read_text().split(start, 1)
    _, after = rest.split(end, 1)
    readme.write_text(f"{before}{start}\n{text}\n{end}{after}")


def machine(folder: Path) -> str:
    """Return one line on where a study in ``folder`` was run, from its store."""
    from nas.store import StudyStore

    store = StudyStore(folder / "store.sqlite")
    fingerprint, versions = store.get("device")["fingerprint"], store.get("environment")
    store.close()
    return (
        f"{fingerprint['cpu']}, {fingerprint['cores']} cores, {' '.join(fingerprint['features'])}; "
        f"onnxruntime {versions['onnxruntime']}, torch {versions['torch']}, Python {versions['python']}"
    )
