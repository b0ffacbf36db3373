"""Pareto pictures and operator charts, on made-up searches."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.agreement import Agreement, Pair
from nas.objective import Objective
from nas.plots import operator_chart, pareto_figure, pareto_html, pareto_png, prediction_chart
from nas.plots.operators import _bars
from nas.plots.points import number, pareto_view, show
from nas.protocols import SearchSnapshot, ShippedModel
from nas.testing.snapshots import OBJECTIVES, make_operators, make_snapshot

ACCURACY, LATENCY, SIZE = OBJECTIVES
MEMORY = Objective("memory_kib", "minimize", unit="KiB")


def shipping(snapshot: SearchSnapshot, rule: str = "knee") -> SearchSnapshot:
    return replace(snapshot, shipped=ShippedModel(snapshot.front[2], snapshot.folder, rule, "because"))


def traces(snapshot: SearchSnapshot) -> dict[str, object]:
    return {trace.name.split(" (")[0]: trace for trace in pareto_figure(snapshot).data if trace.x[0] is not None}


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}


def test_the_front_is_drawn_where_the_snapshot_says(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path, trials=40)
    drawn = traces(snapshot)["on the front"]
    values = [dict(snapshot.evaluations)[trial].values for trial in sorted(snapshot.front)]
    assert list(drawn.x) == [value["latency_ms"] for value in values]
    assert list(drawn.y) == [value["accuracy"] for value in values]


def test_every_fully_evaluated_candidate_is_drawn_once(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path, trials=40)
    whole = [item for _, item in snapshot.evaluations if item.state != "failed" and "accuracy" in item.values]
    markers = ("on the front", "dominated", "beyond a constraint")
    assert sum(len(traces(snapshot)[name].x) for name in markers) == len(whole)
    assert len(traces(snapshot)["beyond a constraint"].x) == sum(item.state == "infeasible" for item in whole) > 0


def test_the_line_of_the_front_rises_in_both_axes(tmp_path: Path) -> None:
    line = pareto_view(make_snapshot(tmp_path, trials=60)).staircase
    assert len(line) > 3
    assert np.all(np.diff([point.value(LATENCY) for point in line]) > 0)
    assert np.all(np.diff([point.value(ACCURACY) for point in line]) > 0)


def test_measured_and_estimated_spreads_become_error_bars(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path, trials=40)
    origins = [dict(snapshot.evaluations)[trial].provenance["latency_ms"] for trial in sorted(snapshot.front)]
    expected = [origin.get("spread", origin.get("std")) for origin in origins]
    assert list(traces(snapshot)["on the front"].error_x.array) == expected


def bars_of(snapshot: SearchSnapshot, made: str) -> SearchSnapshot:
    kept = tuple((trial, item) for trial, item in snapshot.evaluations if made in item.provenance.get("latency_ms", {}))
    members = tuple(trial for trial in snapshot.front if trial in dict(kept))
    return replace(snapshot, evaluations=kept, front=members)


def test_the_title_says_what_a_bar_is_and_on_which_device(tmp_path: Path) -> None:
    snapshot = replace(make_snapshot(tmp_path, trials=40), device={"name": "rpi4"})
    title = unescape(pareto_figure(snapshot).layout.title.text)
    assert "half the quartiles' distance of what is measured, standard deviation of what is estimated" in title
    assert "accuracy (quantized) over latency on rpi4" in title
    assert unescape(pareto_figure(bars_of(snapshot, "spread")).layout.title.text).endswith(
        "bars: half the quartiles' distance</span>"
    )
    assert pareto_figure(bars_of(snapshot, "std")).layout.title.text.endswith("bars: standard deviation</span>")


def test_the_shipped_model_is_starred_with_its_rule(tmp_path: Path) -> None:
    snapshot = shipping(make_snapshot(tmp_path, trials=40))
    star = traces(snapshot)[f"shipped: trial {snapshot.front[2]}"]
    assert star.marker.symbol == "star"
    assert list(star.x) == [dict(snapshot.evaluations)[snapshot.front[2]].values["latency_ms"]]


def test_latency_is_logarithmic_only_beyond_a_decade(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path, trials=40)
    assert pareto_figure(snapshot).layout.xaxis.type == "log"
    near = [(t, item) for t, item in snapshot.evaluations if 1 < item.values.get("latency_ms", 0) < 2]
    kept = tuple(trial for trial in snapshot.front if trial in dict(near))
    assert pareto_figure(replace(snapshot, evaluations=tuple(near), front=kept)).layout.xaxis.type is None


def test_axis_titles_say_unit_and_how_the_numbers_were_made(tmp_path: Path) -> None:
    layout = pareto_figure(make_snapshot(tmp_path, trials=40)).layout
    assert layout.xaxis.title.text == "Latency [ms, measured and modelled]"
    assert layout.coloraxis.colorbar.title.text == "File size [KiB]"


@pytest.mark.parametrize(
    "objectives",
    [(ACCURACY,), (LATENCY,), (SIZE, LATENCY), (ACCURACY, SIZE), OBJECTIVES, (*OBJECTIVES, MEMORY)],
    ids=lambda axes: "-".join(axis.metric for axis in axes),
)
@pytest.mark.parametrize("trials", [0, 1, 25])
def test_one_to_four_objectives_draw(tmp_path: Path, objectives: tuple[Objective, ...], trials: int) -> None:
    snapshot = make_snapshot(tmp_path, trials=trials, objectives=objectives)
    said = [note.text for note in pareto_figure(snapshot).layout.annotations]
    assert ("no candidate has been fully evaluated yet" in said) == (trials == 0)
    if trials == 25:
        pareto_png(snapshot, tmp_path / "pareto.png")
        assert len(colours(tmp_path / "pareto.png")) > 50


def test_a_single_objective_shows_its_history(tmp_path: Path) -> None:
    figure = pareto_figure(make_snapshot(tmp_path, trials=40, objectives=(LATENCY,)))
    best = next(trace for trace in figure.data if trace.name == "best so far")
    assert figure.layout.xaxis.title.text == "Trial"
    assert np.all(np.diff(best.y) <= 0)
    assert best.x[-1] == 39


def test_no_objective_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 to 4"):
        pareto_figure(replace(make_snapshot(tmp_path), objectives=()))


def test_a_bound_stands_at_its_value_on_a_log_axis(tmp_path: Path) -> None:
    bounded = (ACCURACY, replace(LATENCY, bound=2.0))
    layout = pareto_figure(make_snapshot(tmp_path, trials=40, objectives=bounded)).layout
    (line,) = layout.shapes
    (label,) = layout.annotations
    assert line.x0 == line.x1 == 2.0
    assert label.x == pytest.approx(np.log10(2.0))


def test_the_page_needs_no_network_and_runs_nobody_elses_script(tmp_path: Path) -> None:
    snapshot = replace(shipping(make_snapshot(tmp_path, trials=20), "<i>rule</i>"), study="</script><script>alert(1)")
    pareto_html(snapshot, tmp_path / "pareto.html")
    page = (tmp_path / "pareto.html").read_text("utf-8")
    assert len(page) > 3_000_000
    assert "<script>alert(1)" not in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page[:5000] + page[-20000:])


def test_the_picture_is_1200_by_700_and_shows_the_front_line(tmp_path: Path) -> None:
    pareto_png(shipping(make_snapshot(tmp_path, trials=40)), tmp_path / "pareto.png")
    with Image.open(tmp_path / "pareto.png") as picture:
        assert picture.size == (1200, 700)
    assert {(0, 114, 178), (230, 159, 0)} <= colours(tmp_path / "pareto.png")


def test_the_rest_of_the_operators_is_summed() -> None:
    operators = make_operators(30)
    bars = _bars(tuple(reversed(operators)))
    assert len(bars) == 21
    assert bars[0].share == max(operator.share for operator in operators)
    assert bars[-1].label == "10 other operators"
    assert sum(bar.share for bar in bars) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [1, 4, 30])
@pytest.mark.parametrize("ending", ["png", "html"])
def test_operator_charts_are_written(tmp_path: Path, count: int, ending: str) -> None:
    path = tmp_path / f"chart.{ending}"
    operator_chart(make_operators(count), path, "trial 7")
    if ending == "png":
        assert (0, 114, 178) in colours(path)
    else:
        assert "trial 7" in path.read_text("utf-8")


def test_operator_chart_refuses_nothing_to_draw_and_other_endings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one operator"):
        operator_chart((), tmp_path / "chart.png")
    with pytest.raises(ValueError, match=r"expected \.png or \.html"):
        operator_chart(make_operators(2), tmp_path / "chart.svg")


def test_numbers_keep_their_significant_digits() -> None:
    texts = [number(value) for value in (0.0, 0.001234, 0.5, 1.2345, 987.65, 12345.6, 3.2e7)]
    assert texts == ["0.0", "0.001234", "0.5000", "1.234", "987.6", "12,346", "3.200e+07"]
    assert show(LATENCY, 1.5, 0.02) == "1.500 ± 0.020 ms"
    assert show(ACCURACY, 0.9734) == "97.3 %"


def _agreement(pairs: int) -> Agreement:
    made = tuple(Pair(n, 0.01 * (n + 1), 0.001, 0.011 * (n + 1), 0.0002, n > 4, 0.0) for n in range(pairs))
    return Agreement(made, 12, 3, 25)


@pytest.mark.parametrize("pairs", [0, 1, 30])
@pytest.mark.parametrize("ending", ["png", "html"])
def test_measured_against_predicted_is_drawn_with_what_was_saved(tmp_path: Path, pairs: int, ending: str) -> None:
    path = tmp_path / f"chart.{ending}"
    prediction_chart(_agreement(pairs), path, "a study")
    if ending == "png":
        with Image.open(path) as picture:
            assert picture.size == (900, 800)
    else:
        page = path.read_text("utf-8")
        assert "25 measurements were saved" in page.replace(r"\u003cbr\u003e", " ")
        assert page.count("ms (90 %)") == pairs
        assert ("nothing was predicted" in page) == (pairs == 0)


def test_a_prediction_chart_refuses_other_endings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \.png or \.html"):
        prediction_chart(_agreement(3), tmp_path / "chart.pdf", "a study")
