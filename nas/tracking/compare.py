"""One page of MLflow for several searches, from the lines that their trackers returned."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import quote

_RUN = re.compile(r"(?P<before>.*?)(?P<root>https?://\S+)/#/experiments/(?P<experiment>\w+)/runs/(?P<run>\w+)")


def compare_line(lines: Sequence[str]) -> str:
    """Return the line that opens the searches side by side, or nothing where fewer than two are in one experiment.

    Args:
        lines: what :meth:`nas.protocols.Tracker.close` returned for each search.
    """
    found = [match for match in map(_RUN.search, lines) if match]
    if len(found) < 2 or len({(match["root"], match["experiment"]) for match in found}) > 1:
        return ""
    runs = quote(json.dumps([match["run"] for match in found], separators=(",", ":")))
    experiments = quote(json.dumps([found[0]["experiment"]]))
    return f"{found[0]['before']}{found[0]['root']}/#/compare-runs?runs={runs}&experiments={experiments}"
