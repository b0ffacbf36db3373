"""``nas plan``: what a search would spend and what its limits leave, without searching."""

from __future__ import annotations

from typing import Any

from nas.cli import tables
from nas.config.plan import Plan, make_plan

_TITLES = {
    "macs": "MACs",
    "params": "parameters",
    "weights_kib": "weights (KiB)",
    "predicted_latency_ms": "predicted latency (ms)",
}


def run(config: dict[str, Any]) -> int:
    """Print the plan; return 0, or 1 where the limits leave nothing of what was drawn.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.
    """
    plan = make_plan(config)
    if config["output"] == "json":
        tables.print_json(plan.to_dict())
    else:
        _print(plan)
    return 0 if plan.satisfiable > 0 else 1


def _print(plan: Plan) -> None:
    console = tables.console()
    console.print(f"space: {_size(plan.size)} architectures; {plan.drawn} drawn and lowered")
    ranges = tables.table("cost of one candidate", "least", "middle", "most", right=("least", "middle", "most"))
    for name, found in plan.ranges.items():
        values = (tables.number(value) for value in (found.least, found.median, found.most))
        ranges.add_row(_TITLES.get(name, name), *values)
    console.print(ranges)
    if plan.refused:
        for name, share in plan.refused.items():
            console.print(f"limit on {name}: refuses {share:.1%} of what was drawn")
    console.print(f"the limits leave {plan.satisfiable:.1%} of what was drawn")
    if not plan.satisfiable:
        console.print("nothing is left: loosen a limit or a bound, or widen the space", style="bold")
    if plan.seconds is not None:
        console.print(f"one candidate of {plan.trial_macs / 1e6:.2f} million MACs ({plan.trial}) took")
        for cost in plan.fidelities:
            what = f"to epoch {cost.epochs}" if cost.epochs else "without training"
            console.print(f"  {cost.seconds:.1f} s {what}; {cost.candidates} candidates are expected to get there")
        console.print(
            f"estimated time: {_duration(plan.seconds)} for {plan.budget} candidates, {plan.workers} at a time "
            "(candidates differ by their MACs; settling the front and the export come on top)"
        )
    for note in plan.notes:
        console.print(f"note: {note}")


def _size(count: int) -> str:
    return f"{count:,}" if count < 10**9 else f"{count:.2e}"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} minutes"
        if seconds < 7200
        else (f"{seconds / 3600:.1f} hours")
    )
