"""The folder that ships: written, then reloaded, re-scored and re-timed before it is called the result."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nas.data import Dataset, Encoding
from nas.errors import CandidateError, ExportError, ModelFileError
from nas.evaluation import Evaluation
from nas.measurement import Estimate, Measurement, number_from_dict
from nas.protocols import CostMeter, Runtime
from nas.runtime.program_file import write_program

ACCURACY_TOLERANCE = 0.001
# Of a perplexity, as a share of it.
PERPLEXITY_TOLERANCE = 0.005
LATENCY_TOLERANCE = 0.05
_TRIES = 3
# A reading that the machine disturbed is no try, but patience ends.
_PATIENCE = 8

Score = Callable[[Path, Encoding, str], float]


@dataclass(frozen=True)
class Verified:
    """What the reloaded model repeated.

    Args:
        accuracy: on the validation samples, share of right answers; of a language model its perplexity.
        latency: newest reading, of a language model that which repeated last, or None where the device cannot be timed.
        ratio_change: relative change of the ratio to the anchor model against the search, or None.
        tolerance: that the change was held against, or None.
        tries: timings taken.
    """

    accuracy: float
    latency: Measurement | None
    ratio_change: float | None
    tolerance: float | None
    tries: int


@dataclass(frozen=True)
class Exporter:
    """Writes and verifies the folder of a model.

    Args:
        dataset: of the search; its test split is read here, once.
        runtime: that ships.
        meter: that timed the search, or None where costs were predicted.
        score: model file, pre-processing and split name to the task's metric.
        environment: versions, for the card.
        device: name and fingerprint, for the card.
        cost_cards: model name to what its estimates rest on, for the card.
        native: also ship ``model.nasq``, the native runtime's program.
    """

    dataset: Dataset
    runtime: Runtime
    meter: CostMeter | None
    score: Score
    environment: Mapping[str, str]
    device: Mapping[str, Any]
    cost_cards: Mapping[str, Any] = field(default_factory=dict)
    native: bool = False

    def export(
        self,
        evaluation: Evaluation,
        models: Path,
        target: Path,
        preprocessing: Encoding,
        story: Mapping[str, Any],
        notes: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Write the folder and return its model card.

        The folder appears under its name only after the check, and takes the place of an earlier one.

        Args:
            evaluation: what the search recorded.
            models: folder with the candidate's ``model.onnx``, ``model_fp32.onnx`` and ``weights.safetensors``.
            target: folder to make.
            preprocessing: of the network's input.
            story: study, trial, rule and reason, for the card.
            notes: sentences for the card, such as pairs within noise.

        Raises:
            ExportError: a file is missing, the native program cannot be written or gives other bytes, the accuracy
                differs by more than 0.1 point (a perplexity by 0.5 %), or a latency's ratio to the anchor moved in
                three tries by more than the larger of 5 % and three times its recorded spread.
        """
        target = target.resolve()
        if target.exists() and not (target / "model_card.json").is_file() and any(target.iterdir()):
            raise ExportError(f"{target} exists and is no exported model, so it is not replaced; name a new folder")
        draft = target.with_name(f".{target.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name in ("model.onnx", "model_fp32.onnx", "weights.safetensors"):
            if not (models / name).is_file():
                raise ExportError(f"{models / name} is missing; the search kept only its front (keep=front)")
            shutil.copyfile(models / name, draft / name)
        for name, content in self.dataset.shipped_files(preprocessing).items():
            (draft / name).write_text(content, encoding="utf-8")
        native = self._write_program(draft) if self.native else None
        verified = self.verify(draft / "model.onnx", evaluation, preprocessing)
        card = self._card(draft, evaluation, preprocessing, verified, story, notes)
        card["native_program"] = native
        (draft / "model_card.json").write_text(json.dumps(card, indent=2) + "\n")
        earlier = target.with_name(f".{target.name}.earlier")
        shutil.rmtree(earlier, ignore_errors=True)
        if target.exists():
            os.replace(target, earlier)
        os.replace(draft, target)
        shutil.rmtree(earlier, ignore_errors=True)
        return card

    def _write_program(self, folder: Path) -> dict[str, Any]:
        """Write ``model.nasq`` and return what the card says of it."""
        try:
            return write_program(folder / "model.onnx", folder / "model.nasq")
        except ModelFileError as error:
            reason = str(error).replace(f"{folder}/", "")
            raise ExportError(f"model.nasq cannot ship ({reason}); export.native=false ships without it") from error

    def verify(self, model: Path, evaluation: Evaluation, preprocessing: Encoding) -> Verified:
        """Reload, re-score and re-time a model against what the search recorded.

        Raises:
            ExportError: it did not repeat; the text says which number, by how much, and what was allowed.
        """
        metric = self.dataset.task.metric
        value, recorded = self.score(model, preprocessing, "validation"), evaluation.values[metric]
        allowed = ACCURACY_TOLERANCE if metric == "accuracy" else PERPLEXITY_TOLERANCE * recorded
        if abs(value - recorded) > allowed + 1e-12:
            scores = "scores" if metric == "accuracy" else f"has a {metric} of"
            raise ExportError(
                f"{model.name} {scores} {value:.4f} on the validation {self.dataset.task.unit}, the search recorded "
                f"{recorded:.4f}; a difference up to {allowed:.4g} is allowed. The data or the runtime changed since"
            )
        origins = {name: evaluation.provenance.get(name, {}) for name in self.dataset.task.timings}
        measured = {name: origin for name, origin in origins.items() if origin.get("provenance") == "measured"}
        if self.meter is None or not measured:
            return Verified(value, None, None, None, 0)
        return self._retime(model, measured, value)

    def _retime(self, model: Path, origins: Mapping[str, Mapping[str, Any]], value: float) -> Verified:
        """Time all that the search timed until every ratio to the anchor has repeated once, the last metric last."""
        assert self.meter is not None
        tolerances = {name: _tolerance(origin) for name, origin in origins.items()}
        pending = dict.fromkeys(origins)
        changes: dict[str, list[float]] = {name: [] for name in origins}
        busy = tries = 0
        repeated: Verified | None = None
        while pending and max(len(changes[name]) for name in pending) < _TRIES and tries < _PATIENCE:
            tries += 1
            try:
                readings = self.meter.measure(model)
            except CandidateError as error:
                raise ExportError(f"{model.name} could not be timed again: {error}") from error
            disturbed = False
            for name in list(pending):
                reading = readings[name]
                if reading.anchor_ratio is None:
                    raise ExportError("the meter gave no ratio to the anchor model, so the latency cannot be checked")
                change = reading.anchor_ratio / origins[name]["anchor_ratio"] - 1
                if abs(change) <= tolerances[name]:
                    del pending[name]
                    repeated = Verified(value, reading, change, tolerances[name], tries)
                elif reading.disturbed:
                    disturbed = True
                else:
                    changes[name].append(change)
            busy += disturbed
        if repeated is not None and not pending:
            return repeated
        name = next(iter(pending))
        what = "latency" if name == "latency_ms" else name
        raise ExportError(
            f"the {what} of {model.name} as a ratio to the anchor model {_moved(changes[name], busy)}; "
            f"{tolerances[name]:.1%} is allowed. Something else may be using the machine: try nas export again"
        )

    def _card(
        self,
        folder: Path,
        evaluation: Evaluation,
        preprocessing: Encoding,
        verified: Verified,
        story: Mapping[str, Any],
        notes: Sequence[str],
    ) -> dict[str, Any]:
        test, task = len(self.dataset.splits["test"]), self.dataset.task
        latency = asdict(verified.latency) if verified.latency else None
        return {
            **story,
            "architecture": evaluation.architecture.to_dict(),
            "architecture_id": evaluation.architecture.id,
            "data": {
                "name": self.dataset.name,
                "licence": self.dataset.licence,
                "classes": len(self.dataset.classes),
                task.unit: {name: len(split) for name, split in self.dataset.splits.items()},
                "fingerprint": self.dataset.fingerprint,
                "notes": list(self.dataset.notes),
            },
            "preprocessing": preprocessing.to_dict(),
            task.metric: {
                "validation_quantized": verified.accuracy,
                "validation_fp32": evaluation.values.get(f"{task.metric}_fp32"),
                "test_quantized": self.score(folder / "model.onnx", preprocessing, "test") if test else None,
                "test_fp32": self.score(folder / "model_fp32.onnx", preprocessing, "test") if test else None,
            },
            "values": dict(evaluation.values),
            "provenance": {metric: dict(origin) for metric, origin in evaluation.provenance.items()},
            "estimates": self._estimates(evaluation),
            "verified": {**asdict(verified), "latency": latency},
            "files_kib": {path.name: path.stat().st_size / 1024 for path in sorted(folder.iterdir())},
            "runtime": self.runtime.version,
            "device": dict(self.device),
            "environment": dict(self.environment),
            "notes": list(notes),
        }

    def _estimates(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the costs that nobody measured, each with its interval and the cards of the models behind it."""
        found = {}
        for metric, origin in evaluation.provenance.items():
            number = number_from_dict(origin) if origin.get("provenance") in ("predicted", "modelled") else None
            if isinstance(number, Estimate):
                known = math.isfinite(number.std)
                cards = {name: card for name, card in self.cost_cards.items() if name in number.model}
                found[metric] = {
                    "label": number.kind,
                    "value": number.mean,
                    "unit": number.unit,
                    "interval_90": list(number.interval_90) if known else None,
                    "model": number.model,
                    "why_so_wide": number.note,
                    "rests_on": cards,
                }
        return found


def _tolerance(origin: Mapping[str, Any]) -> float:
    """Return the share by which a ratio may move: three times its recorded spread, at least 5 %."""
    recorded, spread = origin.get("anchor_ratio"), origin.get("anchor_spread") or 0.0
    if not recorded:
        raise ExportError("the search recorded no ratio to the anchor model, so the latency cannot be checked")
    return float(max(LATENCY_TOLERANCE, 3 * spread / recorded))


def _moved(changes: Sequence[float], busy: int) -> str:
    if not changes:
        return f"could not be checked, since all of {busy} readings were disturbed"
    ignored = f" ({busy} disturbed readings did not count)" if busy else ""
    return f"moved by {', '.join(f'{change:+.1%}' for change in changes)} in {len(changes)} tries{ignored}"
