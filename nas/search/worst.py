"""Zero-cost scores as a constraint: what scores among the worst seen so far is not trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nas.errors import ConfigError


class Threshold:
    """Remembers the scores of a search and says how much a candidate must score at least.

    A proxy's score has no scale of its own, so it is held against the scores of the candidates of the same search that
    were scored before, the dropped ones among them.

    Args:
        shares: name of a proxy to the share of the worst candidates to drop, such as ``{"naswot": 0.5}``; None drops
            none.
        fewest: scores to see before anything is dropped.

    Raises:
        ConfigError: a share is not above 0 and below 1.
    """

    def __init__(self, shares: Mapping[str, float | None], fewest: int = 10) -> None:
        asked = {name: share for name, share in shares.items() if share is not None}
        for name, share in asked.items():
            if not 0 < share < 1:
                raise ConfigError(f"drop_worst.{name}={share}; expected a share above 0 and below 1, such as 0.5")
        self._shares = {f"proxy_{name}": share for name, share in asked.items()}
        self._fewest = fewest
        self._seen: dict[str, list[float]] = {name: [] for name in self._shares}

    def note(self, values: Mapping[str, float]) -> None:
        """Remember the scores of a candidate; one that has none, such as a failed one, says nothing."""
        for name, seen in self._seen.items():
            if name in values:
                seen.append(values[name])

    def least(self) -> dict[str, float]:
        """Return metric to the least score that is trained, for the proxies of which enough scores are known."""
        return {
            name: float(np.quantile(seen, self._shares[name]))
            for name, seen in self._seen.items()
            if len(seen) >= self._fewest
        }
