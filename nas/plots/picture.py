"""The Pareto picture for papers and READMEs: matplotlib, the same content as the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from nas.plots import palette
from nas.plots.points import (
    ParetoView,
    Point,
    axis_title,
    facts,
    headline,
    is_share,
    log_ticks,
    metric_name,
    pareto_view,
    reference_in_sight,
    spans_decade,
    staircase_line,
)
from nas.protocols import SearchSnapshot


def pareto_png(snapshot: SearchSnapshot, path: Path) -> None:
    """Write the Pareto picture as PNG, 1200 by 700 pixels, the content of ``pareto_figure``.

    Args:
        snapshot: with 1 to 4 objectives.
        path: file to write.

    Raises:
        ValueError: the snapshot has no objective.
    """
    view = pareto_view(snapshot)
    # A Figure of its own, not pyplot: pyplot's registry of figures is not made for threads.
    figure = Figure(figsize=(12, 7), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    _draw_points(figure, axes, view)
    _draw_marks(axes, view, snapshot)
    _draw_axes(axes, view)
    axes.set_title("\n".join(facts(view, snapshot)), loc="left", fontsize=9.5, color=palette.INK)
    title = f"{snapshot.study}: {headline(view, snapshot)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=palette.INK)
    if view.points:
        axes.legend(loc="best", frameon=True, framealpha=0.85, fontsize=10)
    else:
        axes.text(0.5, 0.5, "no candidate has been fully evaluated yet", ha="center", transform=axes.transAxes)
    figure.savefig(path)


def _xs(view: ParetoView, points: Sequence[Point]) -> list[float]:
    return [float(point.trial) if view.x is None else point.value(view.x) for point in points]


def _draw_points(figure: Figure, axes: Axes, view: ParetoView) -> None:
    norm, colours = _norm(view), LinearSegmentedColormap.from_list("hwnas", palette.SCALE)
    faint = {"alpha": 0.45, "linewidths": 0.0, "zorder": 2}
    front = {"alpha": 1.0, "linewidths": 1.0, "edgecolors": palette.INK, "zorder": 4}
    roles = (
        ("dominated", view.of(on_front=False), 45, palette.FAINT, faint),
        ("on the front", view.of(on_front=True), 110, palette.FRONT, front),
    )
    for name, points, area, plain, style in roles:
        if not points:
            continue
        ys, label = [point.value(view.y) for point in points], f"{name} ({len(points)})"
        look: dict[str, Any] = {"c": plain} if view.colour is None else {"cmap": colours, "norm": norm}
        if view.colour is not None:
            look["c"] = [point.value(view.colour) for point in points]
        axes.scatter(_xs(view, points), ys, s=_areas(view, points, area), label=label, **look, **style)
    crossed = view.of(on_front=False, feasible=False)
    if crossed:
        ys, label = [point.value(view.y) for point in crossed], f"beyond a constraint ({len(crossed)})"
        axes.scatter(_xs(view, crossed), ys, s=45, marker="x", c=palette.BOUND, linewidths=1.2, alpha=0.75, label=label)
    if view.colour is not None and view.points:
        bar = figure.colorbar(axes.collections[0], ax=axes, pad=0.01, aspect=40, label=axis_title(view.colour))
        if bar.solids is not None:
            bar.solids.set_alpha(1.0)
        if isinstance(norm, LogNorm):
            log_ticks_at(bar.ax.yaxis, [point.value(view.colour) for point in view.points])


def _norm(view: ParetoView) -> Normalize:
    values = [point.value(view.colour) for point in view.points] if view.colour else []
    if not values:
        return Normalize(0.0, 1.0)
    return LogNorm(min(values), max(values)) if spans_decade(values) else Normalize(min(values), max(values))


def _areas(view: ParetoView, points: Sequence[Point], base: float) -> list[float] | float:
    if view.size is None:
        return base
    values = [point.value(view.size) for point in view.points]
    span = max(values) - min(values) or 1.0
    return [base * (0.4 + 2.0 * (point.value(view.size) - min(values)) / span) for point in points]


def _draw_marks(axes: Axes, view: ParetoView, snapshot: SearchSnapshot) -> None:
    if view.staircase:
        backwards = view.x is not None and view.x.direction == "maximize"
        xs, ys = staircase_line(view)
        label = "best so far" if view.x is None else "front in these two axes"
        axes.step(
            xs, ys, where="pre" if backwards else "post", color=palette.FRONT, linewidth=1.8, zorder=3, label=label
        )
    for point in view.of(on_front=True):
        spreads = [point.spread(axis.metric) if axis else None for axis in (view.x, view.y)]
        if any(spread is not None for spread in spreads):
            place = (_xs(view, (point,)), [point.value(view.y)])
            axes.errorbar(*place, xerr=spreads[0], yerr=spreads[1], fmt="none", ecolor=palette.INK, capsize=2, zorder=5)
    chosen = [point for point in view.points if point.shipped]
    if chosen and snapshot.shipped is not None:
        look: dict[str, Any] = {"s": 420, "marker": "*", "c": palette.SHIPPED, "edgecolors": palette.INK, "zorder": 6}
        label = f"shipped: trial {snapshot.shipped.trial} ({snapshot.shipped.rule})"
        axes.scatter(_xs(view, chosen), [point.value(view.y) for point in chosen], label=label, **look)
    corner = reference_in_sight(view)
    if corner is not None:
        axes.scatter([corner[0]], [corner[1]], s=150, marker="+", c=palette.INK, label="reference point", zorder=3)
    if view.baselines and view.x is not None:
        xs, ys = ([one.values[axis.metric] for one in view.baselines] for axis in (view.x, view.y))
        label = f"baselines ({len(view.baselines)})"
        axes.scatter(xs, ys, s=90, marker="D", c="none", edgecolors=palette.INK, linewidths=1.6, label=label, zorder=5)
        for one, x, y in zip(view.baselines, xs, ys, strict=True):
            axes.annotate(one.name, (x, y), xytext=(7, 5), textcoords="offset points", fontsize=9, color=palette.INK)
    for axis, draw in ((view.x, axes.axvline), (view.y, axes.axhline)):
        if axis is not None and axis.bound is not None:
            label = f"bound: {metric_name(axis).lower()} {axis.bound:g} {axis.unit}".strip()
            draw(axis.bound, color=palette.BOUND, linestyle="--", linewidth=1.2, label=label)


def _draw_axes(axes: Axes, view: ParetoView) -> None:
    axes.grid(True, color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel(axis_title(view.y, view.points), fontsize=12)
    axes.set_xlabel(axis_title(view.x, view.points) if view.x else "Trial", fontsize=12)
    for axis, scale, side in ((view.x, axes.set_xscale, axes.xaxis), (view.y, axes.set_yscale, axes.yaxis)):
        values = view.values(axis) if axis else []
        if axis is not None and is_share(axis):
            side.set_major_formatter(
                PercentFormatter(1.0, decimals=0 if not values or max(values) - min(values) > 0.08 else 1)
            )
        elif spans_decade(values):
            scale("log")
            log_ticks_at(side, values)


def log_ticks_at(side: Any, values: Sequence[float]) -> None:
    """Give a logarithmic axis ticks at 1, 2 and 5 times the powers of ten, with their whole values.

    Args:
        side: matplotlib's x or y axis, or a colour bar's.
        values: positive, what the axis covers.
    """
    side.set_major_locator(FixedLocator(log_ticks(values)))
    side.set_minor_locator(NullLocator())
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
