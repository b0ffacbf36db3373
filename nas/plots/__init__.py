"""Pictures of a search and of a model; plotly and matplotlib are imported when the first one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.agreement import Agreement
from nas.protocols import OperatorTime, SearchSnapshot

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["operator_chart", "pareto_figure", "pareto_html", "pareto_png", "prediction_chart"]


def pareto_figure(snapshot: SearchSnapshot) -> Figure:
    """Return the interactive Pareto picture; see :func:`nas.plots.interactive.pareto_figure`."""
    from nas.plots import interactive

    return interactive.pareto_figure(snapshot)


def pareto_html(snapshot: SearchSnapshot, path: Path) -> None:
    """Write the interactive Pareto picture as one page (5 MB) that renders offline."""
    from nas.plots import interactive

    interactive.write_page(interactive.pareto_figure(snapshot), path, f"{snapshot.study}: Pareto front")


def pareto_png(snapshot: SearchSnapshot, path: Path) -> None:
    """Write the Pareto picture as PNG; see :func:`nas.plots.picture.pareto_png`."""
    from nas.plots import picture

    picture.pareto_png(snapshot, path)


def operator_chart(operators: Sequence[OperatorTime], path: Path, title: str = "Time per operator") -> None:
    """Write the time per operator as ``.png`` or ``.html``; see :func:`nas.plots.operators.operator_chart`."""
    from nas.plots import operators as chart

    chart.operator_chart(operators, path, title)


def prediction_chart(found: Agreement, path: Path, study: str) -> None:
    """Write predicted and measured latencies as ``.png`` or ``.html``; see :mod:`nas.plots.predictions`."""
    from nas.plots import predictions

    predictions.prediction_chart(found, path, study)
