"""``nas front``: shows the front of a finished search, decided again."""

from __future__ import annotations

import json
from typing import Any

from nas.cli.progress import print_report
from nas.config.report import run_front


def run(config: dict[str, Any]) -> int:
    """Print the front and the member that the rule picks; return 0.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.
    """
    report = run_front(config)
    if config["output"] == "json":
        print(json.dumps(report.to_dict()), flush=True)
    else:
        print_report(report)
        if report.exportable:
            print(f"to ship it: nas export {report.folder} trial={report.shipped}")
    return 0
