"""The live display of a search: a bar, the front as it stands, what is running, and the newest trial."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.config.report import SearchReport
from nas.evaluation import Baseline, Evaluation
from nas.objective import Objective
from nas.search.front import Members, settled_metric
from nas.search.status import SearchStatus
from nas.targets import Exchange

_SHOWN_MEMBERS = 12


class LiveProgress:
    """Redraws a panel in a terminal; where there is none, prints a line per finished trial.

    Args:
        objectives: columns of the table; axes of the front.
        mode: ``auto`` (live in a terminal), ``live``, ``plain`` or ``none``.
        console: to draw on; standard error by default, so that standard output stays clean for JSON.
    """

    def __init__(self, objectives: tuple[Objective, ...], mode: str = "auto", console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._mode = ("live" if self._console.is_terminal else "plain") if mode == "auto" else mode
        self._objectives = objectives
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveProgress:
        if self._mode == "live":
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mode == "live":
            self._live.stop()

    def __call__(self, status: SearchStatus) -> None:
        """Show a status."""
        if self._mode == "live":
            self._live.update(self._panel(status))
        elif self._mode == "plain":
            for number, evaluation in status.recent:
                line = self._line(status, number, evaluation)
                self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _panel(self, status: SearchStatus) -> Group:
        head = Text.assemble(
            ("hwnas ", "bold"),
            status.study,
            f"   {status.evaluated}/{status.budget} candidates   {_clock(status.elapsed_s)}",
            f" of {_clock(status.hours * 3600)}" if status.hours else "",
            f"   hypervolume {status.hypervolume:.4f}" if math.isfinite(status.hypervolume) else "",
        )
        counts = "   ".join(f"{state} {count}" for state, count in status.counts.items()) or "no trial has ended yet"
        running = ", ".join(f"{name} for {seconds:.0f} s" for name, seconds in status.running.items()) or "nothing"
        bar = ProgressBar(total=status.budget, completed=status.evaluated, width=60)
        table = front_table(status.front[:_SHOWN_MEMBERS], self._objectives)
        hidden = len(status.front) - _SHOWN_MEMBERS
        more = [Text(f"and {hidden} more", "dim")] if hidden > 0 else []
        # A bar ends without a line break.
        return Group(head, bar, Text(f"\n{counts}", "dim"), Text(f"evaluating {running}", "dim"), table, *more)

    def _line(self, status: SearchStatus, number: int, evaluation: Evaluation) -> str:
        shown = "  ".join(
            f"{objective.metric} {show(objective.metric, evaluation.values[objective.metric])}"
            for objective in self._objectives
            if objective.metric in evaluation.values
        )
        what = shown if evaluation.state == "complete" else f"{evaluation.state}: {evaluation.reason[:160]}"
        return (
            f"[{status.evaluated}/{status.budget}] {_clock(status.elapsed_s)}  trial {number}  {what}  "
            f"(front {len(status.front)}, hypervolume {status.hypervolume:.4f})"
        )


def front_table(
    front: Members,
    objectives: tuple[Objective, ...],
    shipped: int | None = None,
    baselines: Sequence[Baseline] = (),
) -> Table:
    """Return the front as a table; the shipped member is marked, and baselines follow, which are no members."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", justify="right")
    for objective in objectives:
        unit = f" ({objective.unit})" if objective.unit and objective.unit.lower() not in objective.metric else ""
        table.add_column(objective.metric + unit, justify="right")
    metrics = {objective.metric for objective in objectives}
    timed = settled_metric(metrics)
    if timed in metrics:
        table.add_column("spread", justify="right")
    extra = [name for name in ("size_kib", "macs") if name not in metrics]
    for name in extra:
        table.add_column(name, justify="right")
    table.add_column("precision")
    table.add_column("architecture")
    for number, evaluation in front:
        cells = [show(objective.metric, evaluation.values[objective.metric]) for objective in objectives]
        if timed in metrics:
            cells.append(_spread(evaluation, timed))
        cells += [show(name, evaluation.values.get(name, math.nan)) for name in extra]
        style = "bold green" if number == shipped else ""
        mark = f"{number} *" if number == shipped else str(number)
        table.add_row(mark, *cells, _precision(evaluation), evaluation.architecture.id, style=style)
    for baseline in baselines:
        cells = [show(objective.metric, baseline.values.get(objective.metric, math.nan)) for objective in objectives]
        if timed in metrics:
            cells.append(_spread(baseline, timed) if timed in baseline.values else "-")
        cells += [show(name, baseline.values.get(name, math.nan)) for name in extra]
        table.add_row("baseline", *cells, baseline.precision, baseline.name, style="cyan")
    return table


def show(metric: str, value: float) -> str:
    """Return a value as a reader wants it."""
    if math.isnan(value):
        return "-"
    if metric.startswith("accuracy"):
        return f"{value:.2%}"
    if metric in ("macs", "params"):
        return f"{value / 1e6:.2f} M"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def print_report(report: SearchReport, console: Console | None = None) -> None:
    """Print the front, the shipped folder and the line that opens the tracking page."""
    console = console or Console(width=None if sys.stdout.isatty() else 140)
    counts = ", ".join(f"{count} {state}" for state, count in report.counts.items())
    volume = f", hypervolume {report.hypervolume:.4f}" if math.isfinite(report.hypervolume) else ""
    console.print(f"\nFront of {report.study}: {len(report.front)} members{volume}", style="bold", highlight=False)
    if report.devices:
        _print_devices(report, console)
    else:
        console.print(front_table(report.front, report.objectives, report.shipped, report.baselines))
    print_lines = [f"trials: {counts} in {_clock(report.elapsed_s)}" + (f"; {report.ended}" if report.ended else "")]
    for name, own in (report.devices or {"": report}).items():
        if own.agreement is not None:
            print_lines.append(f"latencies{f' on {name}' if name else ''}: {own.agreement.sentence}")
    print_lines += [f"note: {note}" for note in report.notes]
    for name, own in (report.devices or {"": report}).items():
        on = f" on {name}" if name else ""
        print_lines.append(f"rule {report.rule}{on}: {own.reason}")
        if own.export is not None:
            print_lines.append(f"exported model{on}: {own.export}")
    if report.tracking:
        print_lines.append(f"MLflow: {report.tracking}")
    for line in print_lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _print_devices(report: SearchReport, console: Console) -> None:
    """Print one front per device, and what is lost by shipping one's winner on another."""
    for name, own in report.devices.items():
        volume = f", hypervolume {own.hypervolume:.4f}" if math.isfinite(own.hypervolume) else ""
        title = f"\nFront on {name}: {len(own.front)} members{volume}"
        console.print(title, style="bold", highlight=False, markup=False)
        console.print(front_table(own.front, own.objectives, own.shipped, own.baselines))
    if report.exchanges:
        console.print("\nWhat shipping one device's winner on another loses", style="bold", highlight=False)
        console.print(exchange_table(report.exchanges))


def exchange_table(exchanges: Sequence[Exchange]) -> Table:
    """Return a row per winner and a column per device: its time there, held against the device's own winner."""
    devices = list(dict.fromkeys(exchange.on for exchange in exchanges))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("winner of")
    table.add_column("trial", justify="right")
    for name in devices:
        table.add_column(f"on {name}", justify="right")
    for name in dict.fromkeys(exchange.winner_of for exchange in exchanges):
        row = {exchange.on: exchange for exchange in exchanges if exchange.winner_of == name}
        table.add_row(name, str(row[name].trial), *(row[on].text for on in devices))
    return table


def _spread(evaluation: Evaluation | Baseline, metric: str) -> str:
    origin = evaluation.provenance.get(metric, {})
    if origin.get("provenance") == "measured":
        return f"±{origin['spread']:.2g}" + (" !" if origin.get("disturbed") else "")
    return "estimate"


def _precision(evaluation: Evaluation) -> str:
    levels = list(evaluation.architecture.precision.values())
    return " ".join(f"{levels.count(level)} {level}" for level in sorted(set(levels))) or "-"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
