"""The files and the description that a search's page in MLflow shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.agreement import agreement, is_predicting
from nas.evaluation import Evaluation
from nas.plots import operator_chart, pareto_html, pareto_png, prediction_chart
from nas.plots.points import is_share, metric_name, number, precision_summary, show
from nas.protocols import SearchSnapshot

_NOTE_LIMIT = 7900


def write_files(snapshot: SearchSnapshot, folder: Path) -> None:
    """Write everything that a finished or running search shows besides numbers, 5 to 10 MB, 1 to 3 seconds.

    Args:
        snapshot: of the search.
        folder: exists; gets ``pareto.html``, ``pareto.png``, ``front.json``, ``trials.parquet``, ``config.json``,
            where latencies are predicted ``predictions.html`` and ``predictions.png``, and, once a model ships,
            ``operators.png``, ``operators.html`` and ``shipped/model_card.json``; of several devices
            ``pareto_<device>.html`` and ``.png``, ``front_<device>.json``, ``exchanges.json``, and, in place of one
            picture of predictions, ``predictions_<device>.html`` and ``.png``.
    """
    (folder / "front.json").write_text(json.dumps(front_document(snapshot), indent=2) + "\n", "utf-8")
    (folder / "config.json").write_text(json.dumps(snapshot.config, indent=2, default=str) + "\n", "utf-8")
    write_trials(snapshot, folder / "trials.parquet")
    pareto_html(snapshot, folder / "pareto.html")
    pareto_png(snapshot, folder / "pareto.png")
    for name, own in snapshot.devices.items():
        pareto_html(own, folder / f"pareto_{name}.html")
        pareto_png(own, folder / f"pareto_{name}.png")
        (folder / f"front_{name}.json").write_text(json.dumps(front_document(own), indent=2) + "\n", "utf-8")
    if snapshot.exchanges:
        rows = [exchange.to_dict() for exchange in snapshot.exchanges]
        (folder / "exchanges.json").write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    for name, own in _predicting(snapshot).items():
        title = f"{snapshot.study} on {name}" if name else snapshot.study
        for ending in ("png", "html"):
            prediction_chart(agreement(own.evaluations), folder / f"{_chart_of(name)}.{ending}", title)
    if snapshot.shipped is None:
        return
    if snapshot.shipped.operators:
        title = f"{snapshot.study}, trial {snapshot.shipped.trial}, time per operator"
        for ending in ("png", "html"):
            operator_chart(snapshot.shipped.operators, folder / f"operators.{ending}", title)
    card = snapshot.shipped.folder / "model_card.json"
    if card.is_file():
        (folder / "shipped").mkdir()
        (folder / "shipped" / card.name).write_bytes(card.read_bytes())


def _predicting(snapshot: SearchSnapshot) -> dict[str, SearchSnapshot]:
    """Return what each device on which latencies are predicted sees, under an empty name in a search for one."""
    seen = snapshot.devices or {"": snapshot}
    return {name: own for name, own in seen.items() if is_predicting(own.config)}


def _chart_of(device: str) -> str:
    return f"predictions_{device}" if device else "predictions"


def front_document(snapshot: SearchSnapshot) -> dict[str, Any]:
    """Return the front with every number's provenance, JSON-ready."""
    evaluations = dict(snapshot.evaluations)
    members = [
        {"trial": trial, "id": evaluations[trial].architecture.id, **evaluations[trial].to_dict()}
        for trial in snapshot.front
    ]
    axes = [
        {"metric": axis.metric, "direction": axis.direction, "unit": axis.unit, "bound": axis.bound}
        | {"reference": axis.reference}
        for axis in snapshot.objectives
    ]
    shipped = snapshot.shipped
    return {
        "study": snapshot.study,
        "finished": snapshot.finished,
        "objectives": axes,
        "hypervolume": snapshot.hypervolume[-1][1] if snapshot.hypervolume else None,
        "counts": dict(snapshot.counts),
        "device": dict(snapshot.device),
        "environment": dict(snapshot.environment),
        "shipped": {"trial": shipped.trial, "rule": shipped.rule, "reason": shipped.reason} if shipped else None,
        "members": members,
        "baselines": [item.to_dict() for item in snapshot.baselines],
        **({"devices": {name: _brief(own) for name, own in snapshot.devices.items()}} if snapshot.devices else {}),
    }


def _brief(own: SearchSnapshot) -> dict[str, Any]:
    return {"front": list(own.front), "shipped": own.shipped.trial if own.shipped else None, "device": own.device}


def write_trials(snapshot: SearchSnapshot, path: Path) -> None:
    """Write one row per trial, failed ones included, as Parquet.

    Columns: ``trial``, ``architecture``, ``state``, ``reason``, ``on_front``, one per value, ``<metric>.spread`` and
    ``<metric>.provenance``, ``choice.<name>``, ``precision`` (JSON, block to precision), ``seconds.<phase>``,
    ``created``. What a trial lacks is null.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_row(trial, evaluation, trial in snapshot.front) for trial, evaluation in snapshot.evaluations]
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["trial"]
    pq.write_table(pa.table({name: _column([row.get(name) for row in rows]) for name in names}), path)


def _row(trial: int, evaluation: Evaluation, on_front: bool) -> dict[str, Any]:
    architecture = evaluation.architecture
    row: dict[str, Any] = {"trial": trial, "architecture": architecture.id, "space": architecture.space}
    row |= {"state": str(evaluation.state), "reason": evaluation.reason, "on_front": on_front}
    for metric, value in evaluation.values.items():
        origin = evaluation.provenance.get(metric, {})
        row[metric] = float(value)
        row[f"{metric}.spread"] = origin.get("spread", origin.get("std"))
        row[f"{metric}.provenance"] = origin.get("provenance")
    row |= {f"choice.{name}": value for name, value in architecture.choices.items()}
    row["precision"] = json.dumps({block: str(value) for block, value in sorted(architecture.precision.items())})
    row |= {f"constraint.{name}": float(value) for name, value in evaluation.constraints.items()}
    row |= {f"seconds.{phase}": float(value) for phase, value in evaluation.seconds.items()}
    return row | {"created": evaluation.created}


def _column(values: Sequence[Any]) -> Any:
    """Return an Arrow array; where a choice is a number here and a word there all become text."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and not kinds <= {int, float}:
        return pa.array([None if value is None else str(value) for value in values])
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    return pa.array(values)


def description(snapshot: SearchSnapshot, run_id: str) -> str:
    """Return the Markdown at the top of the run's page: what ships and why, and the front's table.

    MLflow cuts descriptions at 8,000 characters, so the table ends with the members that fit.
    """
    state = "finished" if snapshot.finished else "running"
    counts = ", ".join(f"{count} {name}" for name, count in sorted(snapshot.counts.items()))
    lines = [f"**{_cell(snapshot.study)}** ({state}): {sum(snapshot.counts.values())} trials ({counts})."]
    if snapshot.hypervolume:
        corner = ", ".join(
            f"{axis.metric} {axis.reference:g}" for axis in snapshot.objectives if axis.reference is not None
        )
        lines[0] += f" Hypervolume {number(snapshot.hypervolume[-1][1])} from the reference point {corner}."
    if snapshot.shipped:
        shipped = snapshot.shipped
        lines += ["", f"**Ships: trial {shipped.trial}** by the rule *{_cell(shipped.rule)}*: {_cell(shipped.reason)}"]
    picture = f"![Pareto front](get-artifact?path=pareto.png&run_uuid={run_id})"
    for name, own in _predicting(snapshot).items():
        shown = f"get-artifact?path={_chart_of(name)}.png&run_uuid={run_id}"
        on = f"On {name}: " if name else ""
        picture += f"\n\n{on}{agreement(own.evaluations).sentence}.\n\n![Measured against predicted]({shown})"
    foot = f"\n\nInteractive: artifact `pareto.html`. All trials: artifact `trials.parquet`.\n\n{picture}"
    if snapshot.devices:
        return _of_devices("\n".join(lines), snapshot, foot)
    return _front("\n".join(lines), snapshot, _NOTE_LIMIT - len(foot)) + foot


def _of_devices(text: str, snapshot: SearchSnapshot, foot: str) -> str:
    """Return the text with what shipping elsewhere loses, and one front per device in equal shares of the room."""
    devices = list(snapshot.devices)
    if snapshot.exchanges:
        heads = " | ".join(f"on {name}" for name in devices)
        text += f"\n\nWinner of one device on another (~ estimate):\n\n| winner of | trial | {heads} |\n"
        text += "|" + "---|" * (len(devices) + 2)
        for name in devices:
            row = {exchange.on: exchange for exchange in snapshot.exchanges if exchange.winner_of == name}
            if row:
                cells = [name, str(row[name].trial), *(row[on].text if on in row else "-" for on in devices)]
                text += f"\n| {' | '.join(_cell(cell) for cell in cells)} |"
    for turn, (name, own) in enumerate(snapshot.devices.items()):
        room = (_NOTE_LIMIT - len(foot) - len(text)) // (len(devices) - turn)
        text += _front(f"\n\n**Front on {name}** (artifact `pareto_{name}.html`):", own, room)
    return text + foot


def _front(head: str, snapshot: SearchSnapshot, room: int) -> str:
    titles = [
        f"{metric_name(axis)}{'' if is_share(axis) or not axis.unit else f' [{axis.unit}]'}"
        for axis in snapshot.objectives
    ]
    lines = [head, "", f"| trial | {' | '.join(titles)} | precision | made | |", "|" + "---|" * (len(titles) + 4)]
    return _fit("\n".join(lines), _table(snapshot), room)


def _table(snapshot: SearchSnapshot) -> list[str]:
    evaluations: Mapping[int, Evaluation] = dict(snapshot.evaluations)
    rows = []
    for trial in snapshot.front:
        evaluation = evaluations[trial]
        cells = [str(trial)]
        for axis in snapshot.objectives:
            origin = evaluation.provenance.get(axis.metric, {})
            spread = origin.get("spread", origin.get("std"))
            cells.append(show(axis, evaluation.values[axis.metric], spread).removesuffix(f" {axis.unit}"))
        origins = [evaluation.provenance.get(axis.metric, {}) for axis in snapshot.objectives]
        made = {str(origin.get("provenance", "?")) for origin in origins}
        cells += [precision_summary(evaluation.architecture), ", ".join(sorted(made))]
        cells.append("ships" if snapshot.shipped and snapshot.shipped.trial == trial else "")
        rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    for baseline in snapshot.baselines:
        cells = [f"baseline {baseline.name}"]
        for axis in snapshot.objectives:
            value = baseline.values.get(axis.metric)
            cells.append("-" if value is None else show(axis, value).removesuffix(f" {axis.unit}"))
        made = {
            str(baseline.provenance.get(axis.metric, {}).get("provenance", "absent")) for axis in snapshot.objectives
        }
        cells += [baseline.precision, ", ".join(sorted(made)), "baseline"]
        rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return rows


def _fit(head: str, rows: Sequence[str], limit: int) -> str:
    text = head
    for shown, row in enumerate(rows):
        if len(text) + len(row) > limit - 80:
            return f"{text}\n\n{len(rows) - shown} more members: artifact `front.json`."
        text = f"{text}\n{row}"
    return text[:limit]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
