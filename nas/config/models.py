"""Latency models that a config names: by their class, or by the folder that ``nas fit`` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.config.instantiate import instantiate
from nas.cost_protocols import LatencyModel
from nas.device import Device
from nas.errors import ConfigError
from nas.protocols import Runtime

CARD = "card.json"


def latency_model(node: Any, runtime: Runtime, path: str = "cost.model") -> LatencyModel:
    """Return the model of a config node.

    Args:
        node: with ``_target_``, or the path of a folder with a card, which says what reads it.
        runtime: in which latencies are meant.
        path: of the node, for errors.

    Raises:
        ConfigError: no such folder, or its card names what is not allowed.
        DataError: the folder holds nothing for this runtime, or was damaged.
    """
    if not isinstance(node, str):
        model: LatencyModel = instantiate(node, path=path)
        return model
    card = read_card(Path(node), path)
    if not isinstance(card.get("_target_"), str):
        raise ConfigError(f"{path}={node}: {CARD} does not say what reads the folder; fit it again by nas fit.")
    made: LatencyModel = instantiate({"_target_": card["_target_"], "folder": node}, path=path, runtime=runtime)
    return made


def read_card(folder: Path, path: str = "model") -> dict[str, Any]:
    """Return the card of a fitted model.

    Raises:
        ConfigError: there is none.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}={folder} holds no {CARD} that can be read ({error}); expected a folder that nas fit wrote."
        ) from error
    if not isinstance(card, dict):
        raise ConfigError(f"{path}={folder}: {CARD} is no JSON object; fit it again by nas fit.")
    return card


def newest_model(folder: Path, device: Device, runtime: Runtime) -> Path | None:
    """Return the newest fitted model of this very device and runtime, or None."""
    found: list[tuple[str, Path]] = []
    for file in folder.glob(f"*/{CARD}"):
        try:
            card: Mapping[str, Any] = read_card(file.parent)
        except ConfigError:
            continue
        if card.get("device_key") == device.key and runtime.name in card.get("models", {}):
            found.append((str(card.get("made", "")), file.parent))
    return max(found)[1] if found else None
