"""What was predicted of a candidate before it was measured, beside what was measured then."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.doubt import LATENCY, PREDICTION, Z_90
from nas.evaluation import Evaluation, State
from nas.measurement import Estimate, Measurement, number_from_dict


@dataclass(frozen=True)
class Pair:
    """A latency foretold and read.

    Args:
        trial: number of the candidate.
        predicted_ms: mean of the estimate that was made before the candidate was evaluated.
        std_ms: its standard deviation.
        measured_ms: median of the first reading.
        spread_ms: of that reading.
        after_search: True where the candidate was first measured when the search had ended.
        created: seconds since the epoch at the end of the evaluation.
    """

    trial: int
    predicted_ms: float
    std_ms: float
    measured_ms: float
    spread_ms: float
    after_search: bool
    created: float

    @property
    def covered(self) -> bool:
        """Whether the reading lies in the estimate's 90 % interval."""
        return abs(self.measured_ms - self.predicted_ms) <= Z_90 * self.std_ms


@dataclass(frozen=True)
class Agreement:
    """How a search's predictions stand to its measurements.

    Args:
        pairs: in the order of the trials, those first that were measured in the search.
        measured: complete candidates whose latency was measured in the search.
        later: those first measured when it had ended, since they stood on the front or near it.
        saved: complete candidates that were never measured.
    """

    pairs: tuple[Pair, ...]
    measured: int
    later: int
    saved: int

    @property
    def kendall_tau(self) -> float | None:
        """Rank correlation of all pairs, None of fewer than three or where nothing differs."""
        return kendall_tau(self.pairs)

    @property
    def coverage(self) -> float | None:
        """Share of the readings inside the 90 % interval that was stated before them."""
        return sum(pair.covered for pair in self.pairs) / len(self.pairs) if self.pairs else None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary: counts, tau and coverage."""
        return {
            "measured": self.measured,
            "measured_after_search": self.later,
            "saved": self.saved,
            "kendall_tau": self.kendall_tau,
            "coverage_90": self.coverage,
            "pairs": len(self.pairs),
        }

    @property
    def sentence(self) -> str:
        """What a report says."""
        whole = self.measured + self.later + self.saved
        text = (
            f"of {whole} candidates the latency of {self.measured} was measured in the search, that of {self.later} "
            f"when it had ended, {self.saved} measurements were saved"
        )
        if self.pairs:
            tau = f"Kendall tau {self.kendall_tau:.2f}, " if self.kendall_tau is not None else ""
            text += (
                f"; {tau}{sum(pair.covered for pair in self.pairs)} of {len(self.pairs)} readings in the 90 % interval "
                "that had been predicted"
            )
        return text


def is_predicting(config: Mapping[str, Any]) -> bool:
    """Say whether a search with this config measures some latencies and predicts the rest."""
    cost = config.get("cost")
    return isinstance(cost, Mapping) and cost.get("mode") == "auto"


def agreement(evaluations: Iterable[tuple[int, Evaluation]]) -> Agreement:
    """Return what a search's evaluations say of its latency model.

    Only predictions of a model that had learned from this search count, provenance ``predicted``.

    Args:
        evaluations: trial number and evaluation, with the readings that were taken after the search applied.
    """
    early: list[Pair] = []
    late: list[Pair] = []
    counts = {"search": 0, "later": 0, "never": 0}
    for trial, evaluation in evaluations:
        when, reading = first_reading(evaluation)
        if evaluation.state is State.COMPLETE:
            counts[when] += 1
        pair = _pair(trial, evaluation, reading, when == "later") if reading is not None else None
        if pair is not None:
            (late if pair.after_search else early).append(pair)
    return Agreement((*early, *late), counts["search"], counts["later"], counts["never"])


def first_reading(evaluation: Evaluation) -> tuple[str, Measurement | None]:
    """Return when a latency was first measured, ``search``, ``later`` or ``never``, and that reading."""
    now = _number(evaluation, LATENCY)
    before = _number(evaluation, f"search_{LATENCY}")
    if isinstance(before, Measurement):
        return "search", before
    if isinstance(now, Measurement):
        return ("later" if before is not None else "search"), now
    return "never", None


def kendall_tau(pairs: Sequence[Pair]) -> float | None:
    """Return Kendall's tau-b of predicted and measured latencies, None of fewer than three or where nothing differs."""
    if len(pairs) < 3:
        return None
    from scipy.stats import kendalltau  # takes half a second to import

    value = float(kendalltau([pair.predicted_ms for pair in pairs], [pair.measured_ms for pair in pairs]).statistic)
    return value if math.isfinite(value) else None


def _pair(trial: int, evaluation: Evaluation, reading: Measurement, after_search: bool) -> Pair | None:
    foretold = _number(evaluation, PREDICTION)
    if not isinstance(foretold, Estimate) or foretold.kind != "predicted" or not math.isfinite(foretold.std):
        return None
    spread = reading.spread
    return Pair(trial, foretold.mean, foretold.std, reading.value, spread, after_search, evaluation.created)


def _number(evaluation: Evaluation, metric: str) -> Measurement | Estimate | None:
    origin = evaluation.provenance.get(metric)
    return number_from_dict(origin) if origin else None
