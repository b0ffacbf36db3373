"""Remakes the tables and the picture of cost=auto: python experiments/20261124_cost_auto/remake.py [replays | tables]."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from replays import Replay, recorded, with_all, with_doubtful
from report import machine, search, table, write_between

from latency_models.online import OnlineLatency
from nas.agreement import Agreement
from nas.plots import prediction_chart
from nas.search.foresight import Foresight
from nas.search.front import eligible, front_of, hypervolume_of, study_objectives
from nas.search.readings import agreement_of, measurements
from nas.store import StudyStore

SEEDS = (0, 1, 2)
FOLDER = Path("runs/experiments/cost_auto")
LEAST_GAIN = 0.001


def main() -> None:
    """Run the searches that have not been run, replay the measured ones, and write README and picture."""
    if not sys.argv[1:]:
        for mode in ("measured", "auto"):
            for seed in SEEDS:
                if not _is_finished(f"{mode}_{seed}"):
                    search(
                        *("data=digits", "space=convnet", f"cost={mode}", f"seed={seed}", "keep=all", "tracking=none"),
                        *(f"study={mode}_{seed}", f"folder={FOLDER}"),
                    )
    if sys.argv[1:] != ["tables"]:
        write_between(HERE / "README.md", "replays", replays())
    if any(_both(seed) for seed in SEEDS):
        write_between(HERE / "README.md", "searches", searches())


def replays() -> str:
    """Return the table of recorded searches under both modes, in their own order and all of them in random ones."""
    rows = []
    everything = []
    for seed in SEEDS:
        parts, evaluations, objectives = recorded(FOLDER / f"measured_{seed}")
        everything += evaluations
        rows.append(_replayed(f"seed {seed}, as searched", parts, evaluations, objectives))
    distinct = list({evaluation.architecture.id: evaluation for evaluation in everything}.values())
    for order in SEEDS:
        shuffled = [distinct[index] for index in np.random.default_rng(order).permutation(len(distinct))]
        rows.append(_replayed(f"all of them, random order {order}", parts, shuffled, objectives))
    columns = ["candidates", "", "hypervolume, measured", "auto", "difference"]
    columns += ["measured in the search", "share", "at its end", "Kendall tau", "in the 90 % interval"]
    return table(columns, rows)


def _replayed(name: str, parts: Any, evaluations: Any, objectives: Any) -> list[object]:
    whole = with_all(evaluations, objectives)
    foresight = Foresight(OnlineLatency(parts.latency_model), parts.screen, LEAST_GAIN)
    found: Replay = with_doubtful(evaluations, foresight, objectives)
    count = len(evaluations)
    print(name, whole, found.hypervolume, found.in_search, found.after, file=sys.stderr, flush=True)
    return [
        name,
        count,
        f"{whole:.4f}",
        f"{found.hypervolume:.4f}",
        f"{found.hypervolume / whole - 1:+.2%}",
        found.in_search,
        f"{found.in_search / count:.0%}",
        found.after,
        *_quality(found.agreement),
    ]


def searches() -> str:
    """Return the table of the real searches, and draw the predictions of the first."""
    rows, totals = [], {mode: dict.fromkeys(("volume", "search", "all"), 0.0) for mode in ("measured", "auto")}
    for mode in totals:
        for seed in filter(_both, SEEDS):
            folder = FOLDER / f"{mode}_{seed}"
            store = StudyStore(folder / "store.sqlite")
            objectives = study_objectives(store)
            front = front_of(eligible(store, objectives), objectives)
            volume, spent = hypervolume_of(front, objectives), measurements(store)
            found = agreement_of(store)
            totals[mode]["volume"] += volume
            totals[mode]["search"] += spent["search"]
            totals[mode]["all"] += sum(spent.values())
            quality = _quality(found) if found else ["", ""]
            minutes = f"{store.get('elapsed_s') / 60:.1f}"
            settled = spent["settle"] + spent["drift"]
            row: list[object] = [mode, seed, f"{volume:.4f}", len(front), spent["search"], settled, sum(spent.values())]
            rows.append([*row, found.saved if found else 0, *quality, minutes])
            if found and seed == next(filter(_both, SEEDS)):
                prediction_chart(found, HERE / "predictions.png", f"auto_{seed}")
            store.close()
    columns = ["cost", "seed", "hypervolume", "members", "measured in the search", "readings after it", "all readings"]
    columns += ["never measured", "Kendall tau", "in the 90 % interval", "minutes"]
    auto, measured = totals["auto"], totals["measured"]
    seeds = list(filter(_both, SEEDS))
    text = (
        f"Means over {len(seeds)} of {len(SEEDS)} seeds, those of which both searches are finished, auto against measured: hypervolume {auto['volume'] / measured['volume'] - 1:+.2%}; "
        f"{auto['search'] / measured['search']:.0%} of the measurements in the search, "
        f"{auto['all'] / measured['all']:.0%} of all readings, those included by which the front is settled in the end."
    )
    return "\n\n".join([table(columns, rows), text, f"Machine: {machine(FOLDER / 'measured_0')}."])


def _quality(found: Agreement) -> list[str]:
    if found.kendall_tau is None or found.coverage is None:
        return ["-", "-"]
    return [f"{found.kendall_tau:.2f}", f"{sum(p.covered for p in found.pairs)} of {len(found.pairs)}"]


def _both(seed: int) -> bool:
    return _is_finished(f"measured_{seed}") and _is_finished(f"auto_{seed}")


def _is_finished(study: str) -> bool:
    file = FOLDER / study / "store.sqlite"
    if not file.is_file():
        return False
    store = StudyStore(file)
    try:
        return bool(store.get("finished", False))
    finally:
        store.close()


if __name__ == "__main__":
    main()
