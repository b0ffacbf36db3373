"""Makes an MLflow store agree with a snapshot: what is missing is added, what is there is left alone.

Nothing is remembered that the store does not hold, so a pass may be cut anywhere and made again by another process:
runs are found by their tags, and a run counts as written when it is finished and carries the digest of its content.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from nas.errors import ConfigError
from nas.protocols import DeviceGate, SearchSnapshot
from nas.tracking import content, report
from nas.tracking.address import Address
from nas.tracking.registry import register

_FILES = "hwnas.files"
_BATCH = 90  # MLflow takes at most 100 parameters and 100 tags at once
_PARENT = "mlflow.parentRunId"


@dataclass
class _Known:
    run_id: str
    digest: str


class StudyWriter:
    """Writes one study; after an error it is thrown away and a new one looks at the store afresh.

    Args:
        address: of the store.
        experiment: name of the experiment, made where it is missing.
        gate: held while pages are drawn, or None.

    Attributes:
        written: candidates that the store holds whole, as far as the pass has come; None before they were counted.
    """

    def __init__(self, address: Address, experiment: str, gate: DeviceGate | None = None) -> None:
        self._address, self._experiment, self._gate = address, experiment, gate
        self._client = MlflowClient(tracking_uri=address.uri, registry_uri=address.uri)
        self._parent: Run | None = None
        self._children: dict[str, _Known] | None = None
        self._histories: dict[str, dict[int, float]] = {}
        self._tags: dict[str, str] = {}
        self.written: int | None = None

    def write(self, snapshot: SearchSnapshot, with_files: bool) -> tuple[str, str]:
        """Make the store agree with a snapshot.

        Args:
            snapshot: of the one study that this writer writes.
            with_files: also draw and upload pages and pictures, and register what ships.

        Returns:
            Experiment id and id of the parent run.
        """
        parent = self._parent or self._find_parent(snapshot)
        self._parent = parent
        experiment, run_id = parent.info.experiment_id, parent.info.run_id
        self._write_search(snapshot, run_id)
        self._write_children(snapshot, experiment, run_id)
        self._write_metrics(run_id, content.search_metrics(snapshot))
        if with_files:
            self._write_files(snapshot, run_id)
            if snapshot.shipped is not None:
                register(self._client, self._experiment, experiment, run_id, snapshot)
        self._end_search(snapshot, run_id)
        return experiment, run_id

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            artifacts = self._address.artifacts
            return self._client.create_experiment(self._experiment, artifact_location=artifacts)
        if found.lifecycle_stage != "active":
            raise ConfigError(
                f"experiment '{self._experiment}' was deleted in MLflow; restore it there, or name another by "
                "tracking.experiment=NAME"
            )
        return str(found.experiment_id)

    def _find_parent(self, snapshot: SearchSnapshot) -> Run:
        experiment = self._experiment_id()
        found = self._runs(experiment, snapshot, "search")
        for spare in found[1:]:
            # Two processes began at once, or a server answered too late: children find the run that stays.
            self._client.delete_run(spare.info.run_id)
        if found:
            parent = found[0]
            self._tags = dict(parent.data.tags)
            return parent
        tags = content.search_tags(snapshot)
        started = content.milliseconds(snapshot.started)
        parent = self._client.create_run(experiment, start_time=started, tags=tags, run_name=snapshot.study)
        self._tags = dict(tags)
        return parent

    def _runs(self, experiment: str, snapshot: SearchSnapshot, kind: str) -> list[Run]:
        """Return a study's runs, the one to keep of several with the same meaning first."""
        wanted = f"tags.`{content.STUDY_ID}` = '{content.study_id(snapshot)}' and tags.`{content.KIND}` = '{kind}'"
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = self._client.search_runs([experiment], wanted, max_results=500, page_token=token)
            runs += page
            token = page.token
            if not token:
                return sorted(
                    runs, key=lambda run: (run.info.status != "FINISHED", run.info.start_time, run.info.run_id)
                )

    def _write_search(self, snapshot: SearchSnapshot, run_id: str) -> None:
        assert self._parent is not None
        params = content.search_params(snapshot.config)
        known = self._parent.data.params
        new = {name: value for name, value in params.items() if name not in known}
        changed = [
            f"{name}: {known[name]} -> {value}" for name, value in params.items() if known.get(name, value) != value
        ]
        tags = content.search_tags(snapshot) | {content.NOTE: report.description(snapshot, run_id)}
        if changed:
            # A parameter cannot change in MLflow; a search that goes on with a larger budget says so in a tag.
            tags["config_changed"] = "; ".join(changed)[: content.TAG_LIMIT]
        self._log(
            run_id, params=new, tags={name: value for name, value in tags.items() if self._tags.get(name) != value}
        )
        known.update(new)
        self._tags.update(tags)

    def _write_children(self, snapshot: SearchSnapshot, experiment: str, parent: str) -> None:
        if self._children is None:
            self._children = self._find_children(snapshot, experiment)
        wanted = content.candidates(snapshot)
        known = {candidate.key: self._children.get(candidate.key) for candidate in wanted}
        stale = [candidate for candidate in wanted if getattr(known[candidate.key], "digest", "") != candidate.digest]
        self.written = len(wanted) - len(stale)
        for candidate in stale:
            self._write_child(candidate, experiment, parent, known[candidate.key])
            self.written += 1

    def _find_children(self, snapshot: SearchSnapshot, experiment: str) -> dict[str, _Known]:
        children: dict[str, _Known] = {}
        for run in self._runs(experiment, snapshot, "candidate"):
            key = run.data.tags[content.EVALUATION]
            if key in children:
                self._client.delete_run(run.info.run_id)
                continue
            whole = run.info.status == "FINISHED" and run.data.tags.get(_PARENT) == self._parent_id
            children[key] = _Known(run.info.run_id, run.data.tags.get(content.WRITTEN, "") if whole else "")
        return children

    @property
    def _parent_id(self) -> str:
        assert self._parent is not None
        return str(self._parent.info.run_id)

    def _write_child(self, candidate: content.Candidate, experiment: str, parent: str, known: _Known | None) -> None:
        assert self._children is not None
        tags = {**candidate.tags, _PARENT: parent}
        time_ms = candidate.ended_ms
        if known is None:
            run = self._client.create_run(experiment, candidate.started_ms, tags, candidate.name)
            known = self._children[candidate.key] = _Known(run.info.run_id, "")
        elif known.digest:
            # Of several values at one step MLflow shows the one with the latest time.
            time_ms = round(1000 * time.time())
        points = [content.MetricPoint(name, value, 0, time_ms) for name, value in candidate.metrics.items()]
        written = {content.WRITTEN: candidate.digest}
        self._log(known.run_id, params=candidate.params, metrics=points, tags={**tags, **written})
        self._client.set_terminated(known.run_id, "FINISHED", candidate.ended_ms)
        known.digest = candidate.digest

    def _write_metrics(self, run_id: str, points: Sequence[content.MetricPoint]) -> None:
        for name in {point.name for point in points} - self._histories.keys():
            history = self._client.get_metric_history(run_id, name)
            ordered = sorted(history, key=lambda metric: metric.timestamp)
            self._histories[name] = {metric.step: metric.value for metric in ordered}
        missing = [point for point in points if self._histories[point.name].get(point.step) != point.value]
        # Of two values at one step MLflow shows the newer, so a corrected one is dated now.
        now_ms = content.milliseconds(time.time())
        dated = [
            replace(point, time_ms=now_ms) if point.step in self._histories[point.name] else point for point in missing
        ]
        self._log(run_id, metrics=dated)
        for point in missing:
            self._histories[point.name][point.step] = point.value

    def _write_files(self, snapshot: SearchSnapshot, run_id: str) -> None:
        document = [report.front_document(snapshot), len(snapshot.evaluations), snapshot.config]
        digest = hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[:16]
        if self._tags.get(_FILES) == digest:
            return
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            # Drawing takes a core for a second: not while a candidate is timed.
            with self._gate.training() if self._gate is not None else nullcontext():
                report.write_files(snapshot, Path(folder))
            self._client.log_artifacts(run_id, folder)
        self._log(run_id, tags={_FILES: digest})
        self._tags[_FILES] = digest

    def _end_search(self, snapshot: SearchSnapshot, run_id: str) -> None:
        assert self._parent is not None
        status = self._parent.info.status
        if snapshot.finished and status != "FINISHED":
            ends = [evaluation.created for _, evaluation in snapshot.evaluations] or [snapshot.started]
            self._client.set_terminated(run_id, "FINISHED", content.milliseconds(max(ends)))
        elif not snapshot.finished and status == "FINISHED":
            self._client.update_run(run_id, status="RUNNING")
        else:
            return
        self._parent = self._client.get_run(run_id)

    def _log(
        self,
        run_id: str,
        params: Mapping[str, str] | None = None,
        metrics: Sequence[content.MetricPoint] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write in batches that MLflow takes; tags come last, so that a digest among them vouches for the rest."""
        for some in _chunks([Param(name, value) for name, value in (params or {}).items()]):
            self._client.log_batch(run_id, params=some)
        numbers = [Metric(point.name, point.value, point.time_ms, point.step) for point in metrics]
        labels = [RunTag(name, value) for name, value in (tags or {}).items()]
        for rest in _chunks(numbers[_BATCH * 5 :], 500):
            self._client.log_batch(run_id, metrics=rest)
        while len(labels) > _BATCH:
            self._client.log_batch(run_id, tags=labels[:_BATCH])
            labels = labels[_BATCH:]
        if numbers or labels:
            self._client.log_batch(run_id, metrics=numbers[: _BATCH * 5], tags=labels)


def _chunks(items: Sequence[Any], size: int = _BATCH) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
