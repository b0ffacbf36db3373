"""The interactive Pareto page: Plotly, drawn without a network."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nas.evaluation import Baseline
from nas.objective import Objective
from nas.plots import palette
from nas.plots.points import (
    ParetoView,
    Point,
    axis_title,
    facts,
    headline,
    is_share,
    log_axis,
    log_ticks,
    metric_name,
    number,
    pareto_view,
    precision_summary,
    reference_in_sight,
    show,
    spans_decade,
    staircase_line,
)
from nas.protocols import SearchSnapshot

_SHOWN_CHOICES = 12


def pareto_figure(snapshot: SearchSnapshot) -> go.Figure:
    """Draw every fully evaluated candidate and the front over the two objectives that matter most.

    Accuracy is vertical and latency horizontal where there are such; a third objective is the colour, a fourth the
    markers' area. A single objective gives the search's history.

    Args:
        snapshot: with 1 to 4 objectives; none fully evaluated yet gives an empty picture that says so.

    Raises:
        ValueError: the snapshot has no objective.
    """
    view = pareto_view(snapshot)
    figure = go.Figure()
    _add_bounds(figure, view)
    _add_markers(figure, view, snapshot.objectives)
    _add_staircase(figure, view)
    _add_shipped(figure, view, snapshot)
    _add_baselines(figure, view, snapshot.objectives)
    _add_reference(figure, view)
    _lay_out(figure, view, snapshot)
    return figure


def write_page(figure: go.Figure, path: Path, title: str) -> None:
    """Write a page that holds Plotly itself (5 MB), so that it renders offline and fills its frame.

    Args:
        figure: what to draw.
        path: file to write.
        title: of the browser's tab.
    """
    config = {"responsive": True, "displaylogo": False, "toImageButtonOptions": {"scale": 2}}
    drawing = figure.to_html(include_plotlyjs=True, full_html=False, default_height="100vh", config=config)
    style = "html, body { margin: 0; background: white; } body { min-width: 480px; overflow: hidden; }"
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    path.write_text(f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{drawing}</body></html>\n', "utf-8")


def _xs(view: ParetoView, points: Sequence[Point]) -> list[float]:
    return [float(point.trial) if view.x is None else point.value(view.x) for point in points]


def _ys(view: ParetoView, points: Sequence[Point]) -> list[float]:
    return [point.value(view.y) for point in points]


def _add_markers(figure: go.Figure, view: ParetoView, objectives: Sequence[Objective]) -> None:
    roles = (
        ("beyond a constraint", view.of(on_front=False, feasible=False), {"symbol": "x-thin", "opacity": 0.75}, 8),
        ("dominated", view.of(on_front=False), {"symbol": "circle", "opacity": 0.4}, 8),
        ("on the front", view.of(on_front=True), {"symbol": "circle", "opacity": 1.0}, 13),
    )
    for name, points, style, size in roles:
        if not points:
            continue
        crossed = name == "beyond a constraint"
        line = {"width": 1.5 if crossed else 1.2, "color": palette.BOUND if crossed else palette.INK}
        marker: dict[str, Any] = {**style, "size": _sizes(view, points, size), "line": line}
        if name == "dominated":
            marker["line"] = {"width": 0}
        if view.colour is not None and not crossed:
            marker["color"] = _colours(view, view.colour, points)
            marker["coloraxis"] = "coloraxis"
            # Plotly's legend knows no colour scale and would show black: an empty trace stands in.
            key = {**marker, "size": size, "color": palette.SCALE[3], "coloraxis": None}
            figure.add_scatter(x=[None], y=[None], mode="markers", name=f"{name} ({len(points)})", marker=key)
        else:
            marker["color"] = palette.FRONT if name == "on the front" else palette.FAINT
        figure.add_scatter(
            x=_xs(view, points),
            y=_ys(view, points),
            mode="markers",
            name=f"{name} ({len(points)})",
            showlegend="coloraxis" not in marker,
            marker=marker,
            text=[_hover(point, objectives) for point in points],
            hovertemplate="%{text}<extra></extra>",
            **_error_bars(view, points if name == "on the front" else ()),
        )


def _colours(view: ParetoView, axis: Objective, points: Sequence[Point]) -> list[float]:
    values = [point.value(axis) for point in points]
    return [math.log10(value) for value in values] if _log_colours(view, axis) else values


def _log_colours(view: ParetoView, axis: Objective) -> bool:
    return spans_decade([point.value(axis) for point in view.points])


def _sizes(view: ParetoView, points: Sequence[Point], base: float) -> list[float] | float:
    if view.size is None:
        return base
    axis = view.size
    values = [point.value(axis) for point in view.points]
    span = max(values) - min(values) or 1.0
    return [base * (0.6 + 1.0 * ((point.value(axis) - min(values)) / span) ** 0.5) for point in points]


def _error_bars(view: ParetoView, points: Sequence[Point]) -> dict[str, Any]:
    style = {"type": "data", "color": palette.INK, "thickness": 1, "width": 3}
    bars: dict[str, Any] = {}
    for key, axis in (("error_x", view.x), ("error_y", view.y)):
        spreads = [point.spread(axis.metric) for point in points] if axis else []
        if any(spread is not None for spread in spreads):
            bars[key] = {**style, "array": [spread or 0.0 for spread in spreads]}
    return bars


def _add_staircase(figure: go.Figure, view: ParetoView) -> None:
    if not view.staircase:
        return
    backwards = view.x is not None and view.x.direction == "maximize"
    xs, ys = staircase_line(view)
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        name="best so far" if view.x is None else "front in these two axes",
        line={"color": palette.FRONT, "width": 2, "shape": "vh" if backwards else "hv"},
        hoverinfo="skip",
    )


def _add_shipped(figure: go.Figure, view: ParetoView, snapshot: SearchSnapshot) -> None:
    chosen = [point for point in view.points if point.shipped]
    if not chosen or snapshot.shipped is None:
        return
    figure.add_scatter(
        x=_xs(view, chosen),
        y=_ys(view, chosen),
        mode="markers",
        name=f"shipped: trial {snapshot.shipped.trial} ({html.escape(snapshot.shipped.rule)})",
        marker={"symbol": "star", "size": 22, "color": palette.SHIPPED, "line": {"color": palette.INK, "width": 1.2}},
        text=[_hover(point, snapshot.objectives) for point in chosen],
        hovertemplate="<b>shipped</b> · %{text}<extra></extra>",
    )


def _add_baselines(figure: go.Figure, view: ParetoView, objectives: Sequence[Objective]) -> None:
    if not view.baselines or view.x is None:
        return
    figure.add_scatter(
        x=[one.values[view.x.metric] for one in view.baselines],
        y=[one.values[view.y.metric] for one in view.baselines],
        mode="markers+text",
        name=f"baselines ({len(view.baselines)})",
        marker={"symbol": "diamond-open", "size": 13, "color": palette.INK, "line": {"width": 2}},
        text=[html.escape(one.name) for one in view.baselines],
        textposition="top right",
        customdata=[_baseline_hover(one, objectives) for one in view.baselines],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _baseline_hover(baseline: Baseline, objectives: Sequence[Objective]) -> str:
    lines = [f"<b>baseline {html.escape(baseline.name)}</b> · {html.escape(baseline.precision)}"]
    for axis in objectives:
        if axis.metric in baseline.values:
            lines.append(f"{metric_name(axis)}: {show(axis, baseline.values[axis.metric])}")
    return "<br>".join([*lines, *(html.escape(note[:100]) for note in baseline.notes)])


def _add_bounds(figure: go.Figure, view: ParetoView) -> None:
    line = {"color": palette.BOUND, "width": 1.2, "dash": "dash"}
    for letter, other, axis in (("x", "y", view.x), ("y", "x", view.y)):
        if axis is None or axis.bound is None:
            continue
        span = {f"{letter}0": axis.bound, f"{letter}1": axis.bound, f"{other}0": 0, f"{other}1": 1}
        figure.add_shape(type="line", line=line, **span, **{f"{letter}ref": letter, f"{other}ref": "paper"})
        # add_vline would do both, but puts the text of a log axis at ten to the power of its place.
        logarithmic = not is_share(axis) and spans_decade(view.values(axis))
        place = {letter: math.log10(axis.bound) if logarithmic else axis.bound, other: 1.0}
        text = f"bound {axis.bound:g} {axis.unit}".strip()
        anchors = {"xanchor": "left" if letter == "x" else "right", "yanchor": "top"}
        references = {f"{letter}ref": letter, f"{other}ref": "paper"}
        figure.add_annotation(
            text=text, showarrow=False, font={"color": palette.BOUND}, **place, **references, **anchors
        )


def _add_reference(figure: go.Figure, view: ParetoView) -> None:
    corner = reference_in_sight(view)
    if corner is None:
        return
    figure.add_scatter(
        x=[corner[0]],
        y=[corner[1]],
        mode="markers",
        name="reference point",
        marker={"symbol": "cross-thin", "size": 13, "line": {"color": palette.INK, "width": 1.5}},
        hovertemplate="reference point of the hypervolume<extra></extra>",
    )


def _hover(point: Point, objectives: Sequence[Objective]) -> str:
    architecture = point.evaluation.architecture
    lines = [f"<b>trial {point.trial}</b> · {html.escape(architecture.space)} {architecture.id[:8]}"]
    for axis in objectives:
        origin = str(point.evaluation.provenance.get(axis.metric, {}).get("provenance", ""))
        value = show(axis, point.value(axis), point.spread(axis.metric))
        lines.append(f"{metric_name(axis)}: {value}" + (f" ({html.escape(origin)})" if origin else ""))
    if summary := precision_summary(architecture):
        lines.append(f"Precision: {summary}")
    if not point.feasible:
        lines.append(f"Beyond: {html.escape(_violated(point))}")
    choices = [
        f"{html.escape(name)} = {html.escape(str(value))}" for name, value in sorted(architecture.choices.items())
    ]
    for start in range(0, min(len(choices), _SHOWN_CHOICES), 3):
        lines.append(" · ".join(choices[start : min(start + 3, _SHOWN_CHOICES)]))
    if len(choices) > _SHOWN_CHOICES:
        lines.append(f"and {len(choices) - _SHOWN_CHOICES} more choices")
    return "<br>".join(lines)


def _violated(point: Point) -> str:
    over = [f"{name} by {number(value, 3)}" for name, value in point.evaluation.constraints.items() if value > 0]
    return ", ".join(over) or point.evaluation.reason


def _axis(axis: Objective | None, values: Sequence[float], points: Sequence[Point]) -> dict[str, Any]:
    if axis is None:
        return {"title": {"text": "Trial"}, "rangemode": "tozero"}
    layout: dict[str, Any] = {"title": {"text": axis_title(axis, points)}}
    if is_share(axis):
        span = float(np.ptp(values)) if len(values) else 1.0
        layout["tickformat"] = ".0%" if span > 0.08 else ".1%"
    else:
        layout |= log_axis(values)
    return layout


def _lay_out(figure: go.Figure, view: ParetoView, snapshot: SearchSnapshot) -> None:
    lines = "<br>".join(html.escape(line) for line in facts(view, snapshot))
    small = f"<span style='font-size:12px'>{lines}</span>"
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", "size": 14, "color": palette.INK},
        title={
            "text": f"<b>{html.escape(snapshot.study)}</b>: {html.escape(headline(view, snapshot))}<br>{small}",
            "x": 0.01,
            "xanchor": "left",
            "y": 1.0,
            "yanchor": "top",
            "pad": {"t": 26},
        },
        xaxis=_axis(view.x, view.values(view.x) if view.x else [], view.points),
        yaxis=_axis(view.y, view.values(view.y), view.points),
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0.01, "xanchor": "left", "x": 0},
        margin={"l": 80, "r": 30, "t": 100, "b": 110},
        hoverlabel={"align": "left", "bgcolor": "white"},
        coloraxis=_colour_axis(view),
    )
    figure.update_xaxes(showline=True, linecolor=palette.FAINT, ticks="outside", zeroline=False)
    figure.update_yaxes(showline=True, linecolor=palette.FAINT, ticks="outside", zeroline=False)
    if not view.points:
        text = "no candidate has been fully evaluated yet"
        figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 18})


def _colour_axis(view: ParetoView) -> dict[str, Any] | None:
    if view.colour is None:
        return None
    bar: dict[str, Any] = {
        "title": {"text": axis_title(view.colour), "side": "right"},
        "thickness": 14,
        "outlinewidth": 0,
    }
    if _log_colours(view, view.colour):
        ticks = log_ticks([point.value(view.colour) for point in view.points])
        bar |= {"tickvals": [math.log10(tick) for tick in ticks], "ticktext": [f"{tick:g}" for tick in ticks]}
    return {"colorscale": list(palette.SCALE), "colorbar": bar}
