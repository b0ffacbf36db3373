"""What a search refuses before anything is spent: axes, limits and genes that nothing can give a value for."""

from __future__ import annotations

import numpy as np

from nas.accuracy.trainers import SharedTrainer, Trainer
from nas.config.parts import Parts
from nas.errors import ConfigError
from nas.objective import Objective
from nas.protocols import ExactCosts, StepLowering
from nas.search.worst import Threshold
from nas.targets import depends_on_device, on_device


def check_sources(parts: Parts) -> None:
    """Refuse, before anything is spent, an objective or a limit that nothing can give a value for.

    Raises:
        ConfigError: with what could be done.
    """
    have = _available(parts)
    for name, part in parts.others.items():
        try:
            check_sources(part)
        except ConfigError as error:
            raise ConfigError(f"device '{name}': {error}") from error
        own = {metric for metric in _available(part) if depends_on_device(metric)}
        have |= {on_device(metric, name) for metric in own}
    for objective in parts.objectives:
        if objective.metric == "energy_mj" and "energy_mj" not in have:
            raise ConfigError(
                f"objective energy_mj has no source on device '{parts.device.name}': no counter was asked for. "
                "Set energy=measured where the machine has a counter (nas devices tells), "
                "or energy=modelled for the roofline's labelled estimate"
            )
        if objective.metric not in have:
            mend = "Choose accuracy=zero_cost" if objective.metric == "proxy_score" else "Choose another objective="
            raise ConfigError(
                f"nothing gives objective {objective.metric} in this search; have {', '.join(sorted(have))}. "
                f"{mend}, or accuracy=short_training, or cost=measured"
            )
    _check_sharing(parts)
    _check_auto(parts)
    for objective in parts.objectives:
        _check_range(objective)
    _check_half_precision(parts)
    parts.halving  # noqa: B018 - refuses rungs that do not fit
    _check_dropped(parts)
    for name in parts.screen.limits:
        if name not in have:
            raise ConfigError(
                f"limits.{name} cannot be held: nothing gives {name} in this search; "
                f"have {', '.join(sorted(have))}. Drop the limit, or choose cost=measured"
            )


def _available(parts: Parts) -> set[str]:
    """Return the metrics that something in this search gives a value for."""
    scored = not isinstance(parts.accuracy, Trainer)
    task = parts.dataset.task
    have = {"size_kib", "macs", "params", task.timings[0], "proxy_score" if scored else task.metric}
    if not scored:
        have.add(f"{task.metric}_fp32")
    if isinstance(parts.space, ExactCosts):
        have |= parts.space.exact_costs(parts.space.sample(np.random.default_rng(0))).keys()
    if parts.meter is not None:
        have |= {"memory_kib", *task.timings}
    elif isinstance(parts.space, StepLowering):
        have |= {*task.timings}
    metered = parts.meter is not None and parts.meter.has_energy
    if metered or parts.energy_model is not None:
        have.add("energy_mj")
    return have


def _check_dropped(parts: Parts) -> None:
    """Refuse a constraint on a score that no candidate has, or a share that is none."""
    Threshold(parts.config.get("drop_worst", {}))
    dropped = {name for name, share in parts.config.get("drop_worst", {}).items() if share is not None}
    missing = sorted(dropped - set(parts.proxies))
    if missing:
        raise ConfigError(
            f"drop_worst names {', '.join(missing)}, which no candidate is scored by; add it to proxies="
            f"[{','.join([*parts.config['proxies'], *missing])}]"
        )


def _check_sharing(parts: Parts) -> None:
    if isinstance(parts.accuracy, SharedTrainer):
        from nas.accuracy.supernet import sharing

        sharing(parts.space)


def _check_auto(parts: Parts) -> None:
    """Refuse ``cost=auto`` where something else than a latency would have to be measured of every candidate."""
    if parts.config["cost"]["mode"] != "auto":
        return
    measured = {"memory_kib", *parts.dataset.task.timings} - {"latency_ms"}
    if parts.energy_model is None:
        measured.add("energy_mj")
    wanted = {objective.metric for objective in parts.objectives} | set(parts.screen.limits)
    if beyond := sorted(measured & wanted):
        raise ConfigError(
            f"cost=auto predicts latency_ms alone, but {', '.join(beyond)} can only be measured here; "
            "choose cost=measured, or drop it from objective= and limits."
        )


def _check_half_precision(parts: Parts) -> None:
    """Refuse fp16 as a gene where the device or the runtime computes in none."""
    if "fp16" not in (parts.config["space"].get("precisions") or ()):
        return
    from nas.quantize.half import require_half_precision

    device = parts.device
    # Of a board that cannot be reached only the instruction set is known.
    assumed = ("asimdhp",) if device.isa == "aarch64" else ()
    features = device.fingerprint.features if device.fingerprint else assumed
    require_half_precision(device.isa, features, device.name, parts.runtime.name)


def _check_range(objective: Objective) -> None:
    for name, value in (("bound", objective.bound), ("reference", objective.reference)):
        if value is None:
            continue
        key = f"objective.{objective.metric}.{name}={value:g}"
        if objective.metric == "accuracy" and not 0 <= value < 1:
            mend = f"; did you mean {value / 100:g}?" if 1 < value < 100 else ""
            raise ConfigError(f"{key}: accuracy is a share, expected 0 or more and below 1{mend}")
        if objective.direction == "minimize" and not value > 0:
            raise ConfigError(f"{key}: expected a number above 0")
