"""From a finished study to the folder that ships: settle the front, pick by a rule, export, prune."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from nas.architecture import Architecture
from nas.data import Encoding
from nas.errors import ConfigError, ExportError
from nas.evaluation import Evaluation
from nas.export import Exporter
from nas.measurement import Estimate
from nas.objective import Objective
from nas.protocols import OperatorTime, ShippedModel
from nas.search.foresight import latency_of
from nas.search.front import Members, complete, eligible, front_of, leading, study_objectives
from nas.search.rules import pick
from nas.store import StudyStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shipper:
    """Picks and exports members of a study's front.

    Args:
        store: of the study.
        folder: of the study.
        objectives: axes of the front.
        exporter: writes and verifies.
        profile: model file to its time per operator.
        preprocessing: architecture to the pre-processing of its input.
        home: folder of what ships, relative to the study's.
    """

    store: StudyStore
    folder: Path
    objectives: tuple[Objective, ...]
    exporter: Exporter
    profile: Callable[[Path], list[OperatorTime]]
    preprocessing: Callable[[Architecture], Encoding]
    home: str = "export"

    def choose(self, rule: str, member: int | None = None) -> tuple[int, Evaluation, str]:
        """Return trial number, evaluation and the reason, by a rule or by the number of a trial on the front.

        Raises:
            ConfigError: no member qualifies, or ``member`` is not on the front.
        """
        front: Members = leading(self.store, self.objectives)
        if member is None:
            index, reason = pick(rule, [evaluation.values for _, evaluation in front], self.objectives)
            return (*front[index], reason)
        for number, evaluation in front:
            if number == member:
                return number, evaluation, "named by the user"
        raise ConfigError(f"trial {member} is not on the front; have {', '.join(str(number) for number, _ in front)}")

    def ship(self, rule: str, member: int | None = None, target: Path | None = None) -> ShippedModel:
        """Export the member that the rule picks; in the study's own folder it is noted in the store as what ships.

        Args:
            rule: see :mod:`nas.search.rules`.
            member: number of a trial on the front, in place of the rule.
            target: folder to write; ``export`` in the study's folder by default.

        Raises:
            ConfigError: no member qualifies.
            ExportError: the exported model did not repeat what was recorded, or was never timed where it could be.
        """
        number, evaluation, reason = self.choose(rule, member)
        if self.exporter.meter is not None and isinstance(latency_of(evaluation), Estimate):
            raise ExportError(
                f"trial {number} was never timed, so it cannot ship; nas search resume={self.store.get('study')} times "
                "what is on the front"
            )
        logger.info("shipping trial %d: %s", number, reason)
        target = target or self.folder / self.home
        story = {
            "study": self.store.get("study"),
            "trial": number,
            "rule": rule if member is None else f"member={member}",
            "reason": reason,
        }
        models = self.folder / evaluation.folder
        preprocessing = self.preprocessing(evaluation.architecture)
        notes = self.store.get("within_noise", [])
        self.exporter.export(evaluation, models, target, preprocessing, story, notes)
        operators = tuple(self.profile(target / "model.onnx"))
        shipped = ShippedModel(number, target, story["rule"], reason, operators)
        # A copy elsewhere does not change what the study ships.
        if target == self.folder / self.home:
            self.store.put("shipped", {**asdict(shipped), "folder": self.home})
        return shipped

    def prune(self) -> int:
        """Delete the model files of candidates off the front and return how many folders went."""
        axes = study_objectives(self.store)
        front = front_of(eligible(self.store, axes), axes)
        kept = {evaluation.folder for _, evaluation in front}
        # Noted first: a kill in between must not leave a candidate on the front that has lost its files.
        numbers = {number for number, _ in front}
        self.store.put("pruned", [number for number, _ in complete(self.store) if number not in numbers])
        removed = 0
        for folder in sorted((self.folder / "models").glob("*")):
            if str(folder.relative_to(self.folder)) not in kept:
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed
