"""Latencies as they were predicted, and as they were measured afterwards."""

from __future__ import annotations

import html
from pathlib import Path

from nas.agreement import Agreement, Pair
from nas.doubt import Z_90
from nas.plots import palette
from nas.plots.points import log_axis, spans_decade

_BAND = 0.10
_EMPTY = "nothing was predicted and then measured yet"
_AXES = ("predicted latency before it was measured [ms]", "measured latency [ms]")


def prediction_chart(found: Agreement, path: Path, study: str) -> None:
    """Write measured against predicted latencies as ``.png`` or ``.html``, the 90 % intervals as bars.

    Args:
        found: of a search; without pairs the picture is empty and says so.
        path: file to write; ``.png`` is a picture, ``.html`` a page that renders offline.
        study: first word of the title.

    Raises:
        ValueError: the file's name ends otherwise.
    """
    if path.suffix not in (".png", ".html"):
        raise ValueError(f"chart file '{path.name}' ends in '{path.suffix}'; expected .png or .html")
    (_write_png if path.suffix == ".png" else _write_html)(found, path, study)


def _groups(found: Agreement) -> list[tuple[str, str, list[Pair]]]:
    early = [pair for pair in found.pairs if not pair.after_search]
    late = [pair for pair in found.pairs if pair.after_search]
    groups = [
        (f"in the search ({len(early)})", palette.FRONT, early),
        (f"after it ({len(late)})", palette.SHIPPED, late),
    ]
    return [group for group in groups if group[2]]


def _line(found: Agreement) -> list[float]:
    """Return both ends of the diagonal, with the band around it in sight."""
    values = [value for pair in found.pairs for value in (pair.predicted_ms, pair.measured_ms)]
    return [min(values) * (1 - _BAND), max(values) * (1 + _BAND)]


def _write_png(found: Agreement, path: Path, study: str) -> None:
    from matplotlib.figure import Figure

    from nas.plots.picture import log_ticks_at

    figure = Figure(figsize=(9, 8), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    figure.suptitle(f"{study}: measured against predicted", x=0.01, ha="left", fontweight="bold", color=palette.INK)
    axes.set_title("\n".join(_wrapped(found)), loc="left", fontsize=9.5, pad=12, color=palette.INK)
    axes.set_xlabel(_AXES[0])
    axes.set_ylabel(_AXES[1])
    axes.spines[["top", "right"]].set_visible(False)
    if not found.pairs:
        axes.text(0.5, 0.5, _EMPTY, ha="center", transform=axes.transAxes)
        figure.savefig(path)
        return
    ends = _line(found)
    axes.plot(ends, ends, color=palette.FAINT, linewidth=1.2, label="equal")
    low, high = ([end * factor for end in ends] for factor in (1 - _BAND, 1 + _BAND))
    axes.fill_between(ends, low, high, color=palette.FAINT, alpha=0.15, linewidth=0, label=f"within {_BAND:.0%}")
    for label, colour, pairs in _groups(found):
        axes.errorbar(
            [pair.predicted_ms for pair in pairs],
            [pair.measured_ms for pair in pairs],
            xerr=[Z_90 * pair.std_ms for pair in pairs],
            fmt="o",
            color=colour,
            elinewidth=0.8,
            alpha=0.85,
            label=label,
        )
    if spans_decade(ends):
        for scale, side in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
            scale("log")
            log_ticks_at(side, ends)
    axes.legend(loc="lower right", frameon=True)
    figure.savefig(path)


def _write_html(found: Agreement, path: Path, study: str) -> None:
    import plotly.graph_objects as go

    from nas.plots.interactive import write_page

    figure = go.Figure()
    if found.pairs:
        ends = _line(found)
        figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"color": palette.FAINT, "width": 1.5})
    else:
        figure.add_annotation(text=_EMPTY, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    for label, colour, pairs in _groups(found):
        figure.add_scatter(
            x=[pair.predicted_ms for pair in pairs],
            y=[pair.measured_ms for pair in pairs],
            error_x={"array": [Z_90 * pair.std_ms for pair in pairs], "thickness": 1},
            mode="markers",
            name=label,
            marker={"color": colour, "size": 9},
            text=[_hover(pair) for pair in pairs],
            hovertemplate="%{text}<extra></extra>",
        )
    lines = _wrapped(found)
    small = "<br>".join(html.escape(line) for line in lines)
    title = f"<b>{html.escape(study)}</b>: measured against predicted<br><span style='font-size:12px'>{small}</span>"
    scale = log_axis(_line(found)) if found.pairs else {}
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", "size": 14, "color": palette.INK},
        title={"text": title, "x": 0.01, "xanchor": "left", "y": 1.0, "yanchor": "top", "pad": {"t": 28}},
        xaxis={"title": {"text": _AXES[0]}, **scale},
        yaxis={"title": {"text": _AXES[1]}, **scale},
        margin={"l": 80, "r": 30, "t": 70 + 26 * len(lines), "b": 70},
    )
    write_page(figure, path, f"{study}: predictions")


def _hover(pair: Pair) -> str:
    error = pair.measured_ms / pair.predicted_ms - 1
    return (
        f"<b>trial {pair.trial}</b><br>predicted {pair.predicted_ms:.4g} ± {Z_90 * pair.std_ms:.2g} ms (90 %)"
        f"<br>measured {pair.measured_ms:.4g} ± {pair.spread_ms:.2g} ms ({error:+.1%})"
    )


def _wrapped(found: Agreement) -> list[str]:
    import textwrap

    return textwrap.wrap(found.sentence, 110)
