"""``nas export``: writes the folder that ships, after the model was scored and timed again."""

from __future__ import annotations

import json
from typing import Any

from nas.config.build import run_export


def run(config: dict[str, Any]) -> int:
    """Export a member of a study's front and print where it is; return 0.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.
    """
    shipped = run_export(config)
    if config["output"] == "json":
        facts = {"trial": shipped.trial, "export": str(shipped.folder), "rule": shipped.rule, "reason": shipped.reason}
        print(json.dumps(facts), flush=True)
    else:
        print(f"trial {shipped.trial}, {shipped.rule}: {shipped.reason}")
        print(f"exported model: {shipped.folder}")
    return 0
