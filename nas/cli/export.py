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
        facts = {
            name: {"trial": one.trial, "export": str(one.folder), "rule": one.rule, "reason": one.reason}
            for name, one in shipped.items()
        }
        print(json.dumps(facts.get("", {"devices": facts})), flush=True)
        return 0
    for name, one in shipped.items():
        print(f"{name}{': ' if name else ''}trial {one.trial}, {one.rule}: {one.reason}")
        print(f"exported model: {one.folder}")
    return 0
