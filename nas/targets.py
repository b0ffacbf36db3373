"""Costs on several devices: names of metrics, a candidate as one device sees it, and what shipping elsewhere loses.

The first device of a search keeps the plain names (``latency_ms``), as in a search for it alone; those of the others
carry the device (``latency_ms@rpi4``). Seen from another device the two change places, so that whatever reads a search
for one device reads one for several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nas.evaluation import Evaluation
from nas.objective import Objective

PER_DEVICE = ("latency_ms", "ttft_ms", "token_ms", "energy_mj", "memory_kib")
_PREFIXES = ("predicted_", "search_")
_MARK = "@"
_QUALITIES = ("accuracy", "perplexity", "proxy_score")
_TIMES = ("latency_ms", "token_ms")


def on_device(metric: str, device: str) -> str:
    """Return the name of a metric on a device; on the first one, whose name is then empty, it keeps its own."""
    return f"{metric}{_MARK}{device}" if device else metric


def split(metric: str) -> tuple[str, str]:
    """Return the plain metric and its device, empty for that of the first device or of none."""
    plain, _, device = metric.partition(_MARK)
    return plain, device


def depends_on_device(metric: str) -> bool:
    """Say whether a plain metric, or one that stands for it, has a value per device."""
    for prefix in _PREFIXES:
        metric = metric.removeprefix(prefix)
    return metric in PER_DEVICE


def expanded(objectives: Sequence[Objective], others: Sequence[str]) -> tuple[Objective, ...]:
    """Return the axes with one per device where a metric depends on it; bounds and references hold on each."""
    axes: list[Objective] = []
    for objective in objectives:
        axes.append(objective)
        if depends_on_device(objective.metric):
            axes += [replace(objective, metric=on_device(objective.metric, name)) for name in others]
    return tuple(axes)


def seen_from(metric: str, first: str, device: str) -> str:
    """Return a metric's name with the first device and another one having changed places."""
    plain, name = split(metric)
    if device == first:
        return metric
    if name == device:
        return plain
    return on_device(plain, first) if not name and depends_on_device(plain) else metric


def seen_on(evaluation: Evaluation, first: str, device: str) -> Evaluation:
    """Return an evaluation as a search for ``device`` would have it; the first device's values carry its name."""
    return replace(
        evaluation,
        values={seen_from(metric, first, device): value for metric, value in evaluation.values.items()},
        provenance={seen_from(metric, first, device): origin for metric, origin in evaluation.provenance.items()},
        constraints={seen_from(metric, first, device): value for metric, value in evaluation.constraints.items()},
    )


def own_values(values: Mapping[str, float], objectives: Sequence[Objective], device: str) -> dict[str, float]:
    """Return what a candidate has on a device's own axes, under their plain names.

    Args:
        values: of the candidate, as the search names them.
        objectives: axes of that device.
        device: empty for the first one.
    """
    metrics = [objective.metric for objective in objectives]
    return {metric: values[on_device(metric, device) if depends_on_device(metric) else metric] for metric in metrics}


def own_axes(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """Return the axes without those of other devices."""
    return tuple(objective for objective in objectives if not split(objective.metric)[1])


@dataclass(frozen=True)
class Exchange:
    """What is lost by shipping the winner of one device on another.

    Args:
        winner_of: device by whose front the trial was picked.
        on: device on which it would run.
        trial: number of the trial.
        metric: the time, ``latency_ms`` or ``token_ms``.
        time_ms: of the trial on ``on``.
        estimated: whether that time or the one that it is held against is an estimate.
        measure: ``accuracy``, ``perplexity`` or ``proxy_score``.
        quality: of the trial, by that measure.
        own_trial: the winner of ``on``.
        own_time_ms: its time there.
        own_quality: of that one.
        fastest_ms: on ``on``, of the members of its front that are at least as good as the trial.
    """

    winner_of: str
    on: str
    trial: int
    metric: str
    time_ms: float
    estimated: bool
    measure: str
    quality: float
    own_trial: int
    own_time_ms: float
    own_quality: float
    fastest_ms: float

    @property
    def lost_time(self) -> float:
        """Time above that of the device's own winner, as a share of it; below 0 where the trial is faster."""
        return self.time_ms / self.own_time_ms - 1

    @property
    def lost_at_its_quality(self) -> float:
        """Time above the fastest of the device's front that is at least as good, as a share; never below 0."""
        return self.time_ms / self.fastest_ms - 1

    @property
    def text(self) -> str:
        """One cell of a table, such as ``1.2 ms, +20% (+12% at its accuracy), -0.5 points``; ``~``: an estimate."""
        time = f"{'~' if self.estimated else ''}{self.time_ms:.3g} ms"
        if self.trial == self.own_trial:
            return time if self.winner_of == self.on else f"{time}, its winner too"
        gained = self.quality - self.own_quality
        change = f"{100 * gained:+.2f} points" if self.measure == "accuracy" else f"{gained:+.4g} {self.measure}"
        at_its = f"{self.lost_at_its_quality:+.1%} at its {self.measure}"
        return f"{time}, {self.lost_time:+.1%} ({at_its}), {change}"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, losses included."""
        return {**asdict(self), "lost_time": self.lost_time, "lost_at_its_quality": self.lost_at_its_quality}


Front = Sequence[tuple[int, Evaluation]]
Seen = Mapping[str, Evaluation]


def exchanges(fronts: Mapping[str, Front], winners: Mapping[str, tuple[int, Seen]]) -> list[Exchange]:
    """Return one exchange per pair of devices that have a winner, each device with itself included.

    Args:
        fronts: device to the members of its front, as it sees them.
        winners: device to the number of the trial that ships there, and to that trial as each device sees it.

    Returns:
        Winner by winner; empty where quality or time are not among the values.
    """
    found = []
    for name, (trial, seen) in winners.items():
        for on, (own_trial, own_seen) in winners.items():
            here, own = seen[on], own_seen[on]
            quality = next((metric for metric in _QUALITIES if metric in here.values), "")
            time = next((metric for metric in _TIMES if metric in here.values), "")
            if not quality or not time:
                return []
            sign = 1.0 if quality == "perplexity" else -1.0
            as_good = [
                member.values[time]
                for _, member in fronts[on]
                if sign * member.values[quality] <= sign * here.values[quality] + 1e-12
            ]
            origins = [one.provenance.get(time, {}).get("provenance") for one in (here, own)]
            found.append(
                Exchange(
                    winner_of=name,
                    on=on,
                    trial=trial,
                    metric=time,
                    time_ms=here.values[time],
                    estimated=any(origin != "measured" for origin in origins),
                    measure=quality,
                    quality=here.values[quality],
                    own_trial=own_trial,
                    own_time_ms=own.values[time],
                    own_quality=own.values[quality],
                    fastest_ms=min([*as_good, here.values[time]]),
                )
            )
    return found
