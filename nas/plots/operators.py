"""Where a model's time goes, operator by operator."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.plots import palette
from nas.protocols import OperatorTime

_TOP = 20
_NAME_WIDTH = 46


@dataclass(frozen=True)
class _Bar:
    label: str
    kind: str
    median_us: float
    share: float


def operator_chart(operators: Sequence[OperatorTime], path: Path, title: str = "Time per operator") -> None:
    """Write horizontal bars, the 20 slowest operators and the sum of the rest, each with its share.

    Args:
        operators: profile of a model, in any order.
        path: file to write; ``.png`` is a picture, ``.html`` a page that renders offline.
        title: first words of the chart's title.

    Raises:
        ValueError: there are no operators, or the file's name ends otherwise.
    """
    if not operators:
        raise ValueError("the profile is empty; expected at least one operator. Profile the model again.")
    if path.suffix not in (".png", ".html"):
        raise ValueError(f"chart file '{path.name}' ends in '{path.suffix}'; expected .png or .html")
    bars = _bars(operators)
    total = sum(operator.median_us for operator in operators)
    headline = f"{title}: {_time(total)} in {len(operators)} operators, sum of the medians"
    colours = _colours(bars)
    if path.suffix == ".png":
        _write_png(bars, colours, headline, path)
    else:
        _write_html(bars, colours, headline, path)


def _bars(operators: Sequence[OperatorTime]) -> list[_Bar]:
    slowest = sorted(operators, key=lambda operator: operator.median_us, reverse=True)
    bars = [
        _Bar(_short(operator.name), operator.kind, operator.median_us, operator.share) for operator in slowest[:_TOP]
    ]
    rest = slowest[_TOP:]
    if rest:
        share = sum(operator.share for operator in rest)
        bars.append(_Bar(f"{len(rest)} other operators", "", sum(operator.median_us for operator in rest), share))
    return bars


def _short(name: str) -> str:
    half = (_NAME_WIDTH - 1) // 2
    return name if len(name) <= _NAME_WIDTH else f"{name[:half]}…{name[-half:]}"


def _time(microseconds: float) -> str:
    return f"{microseconds / 1000:.3g} ms" if microseconds >= 1000 else f"{microseconds:.3g} µs"


def _colours(bars: Sequence[_Bar]) -> dict[str, str]:
    """Give the operator types that take the most time a colour each; the last colour is for all others."""
    weight: Counter[str] = Counter()
    for bar in bars:
        if bar.kind:
            weight[bar.kind] += round(bar.median_us * 1000)
    named = [kind for kind, _ in weight.most_common(len(palette.KINDS) - 1)]
    return dict(zip(named, palette.KINDS, strict=False))


def _groups(bars: Sequence[_Bar], colours: dict[str, str]) -> list[tuple[str, str, list[int]]]:
    groups = [
        (kind, colour, [index for index, bar in enumerate(bars) if bar.kind == kind])
        for kind, colour in colours.items()
    ]
    others = [index for index, bar in enumerate(bars) if bar.kind not in colours]
    return groups + ([("other", palette.KINDS[-1], others)] if others else [])


def _write_png(bars: Sequence[_Bar], colours: dict[str, str], headline: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.6 + 0.28 * len(bars)), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for kind, colour, indices in _groups(bars, colours):
        axes.barh(indices, [100 * bars[index].share for index in indices], color=colour, label=kind)
    for index, bar in enumerate(bars):
        axes.text(100 * bar.share, index, f" {100 * bar.share:.1f} % · {_time(bar.median_us)}", va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.set_xlabel("share of the operators' time [%]")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(headline, loc="left", fontweight="bold", color=palette.INK)
    axes.legend(loc="lower right", title="operator type", frameon=False)
    figure.savefig(path)


def _write_html(bars: Sequence[_Bar], colours: dict[str, str], headline: str, path: Path) -> None:
    import plotly.graph_objects as go

    from nas.plots.interactive import write_page

    figure = go.Figure()
    for kind, colour, indices in _groups(bars, colours):
        chosen = [bars[index] for index in indices]
        figure.add_bar(
            x=[100 * bar.share for bar in chosen],
            y=indices,
            orientation="h",
            width=0.8,
            name=html.escape(kind),
            marker_color=colour,
            text=[f"{100 * bar.share:.1f} % · {_time(bar.median_us)}" for bar in chosen],
            textposition="outside",
            hovertext=[f"{html.escape(bar.label)}<br>{html.escape(bar.kind)}" for bar in chosen],
            hovertemplate="%{hovertext}<br>%{text}<extra></extra>",
        )
    names = [html.escape(bar.label) for bar in bars]
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", "size": 13, "color": palette.INK},
        title={"text": f"<b>{html.escape(headline)}</b>", "x": 0.01, "xanchor": "left"},
        xaxis={
            "title": {"text": "share of the operators' time [%]"},
            "range": [0, 115 * max(bar.share for bar in bars)],
        },
        yaxis={"autorange": "reversed", "tickmode": "array", "tickvals": list(range(len(bars))), "ticktext": names},
        legend={"title": {"text": "operator type"}, "x": 0.99, "xanchor": "right", "y": 0.02, "yanchor": "bottom"},
        barmode="overlay",
        margin={"l": 20, "r": 40, "t": 70, "b": 60},
    )
    figure.update_yaxes(automargin=True)
    write_page(figure, path, headline)
