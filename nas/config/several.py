"""Several devices in one search: from ``devices=[local,rpi4]`` to one node of the group ``device`` per name.

Hydra has the way already, ``+device@devices.rpi4=rpi4``; here the short form becomes it, so that spelling, defaults and
``devices.rpi4.KEY=VALUE`` are Hydra's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from nas.errors import ConfigError, unknown_name

# Key of the search to the group whose members its entries are.
_GROUPS = {"devices": "device", "costs": "cost"}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_EXPECTED = "two devices or more, such as devices=[local,rpi4] or devices={desk: local, board: ssh}"


def spelled_out(overrides: Sequence[Override]) -> list[str]:
    """Return the overrides as texts, ``devices=`` and ``costs=`` in Hydra's own form.

    Raises:
        ConfigError: what is given is no list or mapping of names, or ``device`` is given beside ``devices``.
    """
    lines: list[str] = []
    several = False
    for override in overrides:
        group = _GROUPS.get(override.key_or_group)
        if group is None or override.is_delete():
            lines.append(str(override.input_line))
            continue
        several |= group == "device"
        lines += [f"+{group}@{override.key_or_group}.{name}={member}" for name, member in _members(override).items()]
    for override in overrides:
        if several and override.key_or_group.split(".")[0] == "device" and override.package is None:
            raise ConfigError(
                f"'{override.input_line}' stands beside devices=, which takes its place; write "
                "devices.NAME.KEY=VALUE for a setting of one of them."
            )
    return lines


def _members(override: Override) -> Mapping[str, str]:
    value, key = override.value(), override.key_or_group
    if isinstance(value, list) and key == "devices":
        named = list(map(str, value))
        value = dict(zip(named, named, strict=True))
        if len(value) < len(named):
            raise ConfigError(f"'{override.input_line}' names a device twice; expected {_EXPECTED}.")
    if not isinstance(value, dict) or not all(isinstance(member, str) for member in value.values()):
        expected = _EXPECTED if key == "devices" else "costs={NAME: predicted}, NAME being one of devices="
        raise ConfigError(f"'{override.input_line}': expected {expected}.")
    if key == "devices" and len(value) < 2:
        raise ConfigError(f"'{override.input_line}': expected {_EXPECTED}. For one alone write device=NAME.")
    for name in value:
        if not _NAME.fullmatch(str(name)):
            raise ConfigError(f"'{override.input_line}': expected names of letters, digits and '_', not '{name}'.")
    return {str(name): str(member) for name, member in value.items()}


def out_of_reach(config: Mapping[str, Any]) -> list[str]:
    """Return overrides that predict the costs of those of several devices that nothing can be measured on."""
    if (config.get("cost") or {}).get("mode") == "predicted":
        return []
    costs = config.get("costs") or {}
    return [
        f"+cost@costs.{name}=predicted"
        for name, node in (config.get("devices") or {}).items()
        if node.get("transport") == "none" and name not in costs
    ]


def implied_runtime(
    config: Mapping[str, Any], choices: Mapping[str, str | None], overrides: Sequence[Override]
) -> list[str]:
    """Return the override that takes the native runtime where a board runs nothing else and none was named."""
    nodes = [config.get("device") or {}, *(config.get("devices") or {}).values()]
    bare = any(node.get("runner") == "nasq-run" for node in nodes)
    named = any(override.key_or_group.split(".")[0] == "runtime" for override in overrides)
    return ["runtime=native"] if bare and not named and choices.get("runtime") == "onnxruntime" else []


def filled(config: dict[str, Any]) -> dict[str, Any]:
    """Return a resolved config whose ``device`` and ``cost`` are those of the first of several devices.

    Raises:
        ConfigError: ``costs`` names a device that is none of them.
    """
    devices, costs = config.get("devices") or {}, config.get("costs") or {}
    for name in costs:
        if name not in devices:
            raise unknown_name("device in costs", name, devices, "It speaks of devices=[...].")
    if not devices:
        return config
    first, *others = devices
    kept = {name: costs.get(name, config["cost"]) for name in others}
    return {**config, "device": devices[first], "cost": costs.get(first, config["cost"]), "costs": kept}
