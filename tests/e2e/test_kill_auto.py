"""Kill -9 of a search with ``cost=auto`` at step after step: what was read is kept, counted, taught, and read once."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed_auto_search.py")
BUDGET = 18


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What each run left, in their order, the last one whole; predictions as made and as expected; where kills came."""
    folder = tmp_path_factory.mktemp("killed")
    ended = subprocess.run([sys.executable, PROGRAM, folder], capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    *runs, predictions = map(json.loads, ended.stdout.splitlines())
    return runs, predictions, (folder / "kills").read_text().splitlines()


def test_it_was_killed_between_all_that_must_hold_together(killed):
    runs, _, kills = killed
    assert [run["signal"] for run in runs] == [9] * len(kills) + [0]
    points = ("a reading of the search", "a reading of the settling", "after elapsed_s", "a trial", "estimates")
    for step in points:
        assert any(step in kill for kill in kills), step


def test_what_was_acknowledged_survives_and_the_last_run_reaches_the_end(killed):
    runs, _, _ = killed
    assert {run["integrity"] for run in runs} == {"ok"}
    for before, after in pairwise(runs):
        assert after["trials"][: len(before["trials"])] == before["trials"]
    assert [number for number, _, _ in runs[-1]["trials"]] == list(range(len(runs[-1]["trials"])))
    assert sum(state == "complete" for _, state, _ in runs[-1]["trials"]) == BUDGET
    assert [run["finished"] for run in runs] == [False] * (len(runs) - 1) + [True]


def test_what_was_measured_stays_so_and_is_measured_once(killed):
    runs, _, _ = killed
    for before, after in pairwise(runs):
        searched = [line["ids"][0] for line in after["log"][len(before["log"]) :] if line["when"] == "search"]
        assert len(set(searched)) == len(searched)
        assert not {architecture for _, _, architecture in before["trials"]} & set(searched)
        for architecture, latency in before["latencies"].items():
            now = after["latencies"][architecture]
            assert now == latency or latency["provenance"] == "predicted" or after["settled"] != before["settled"]
            assert (now["provenance"], latency["provenance"]) != ("predicted", "measured")
    # Of what was read and not acknowledged each kill lost one at most.
    read = [line["ids"][0] for line in runs[-1]["log"] if line["when"] == "search"]
    assert runs[-1]["measurements"]["search"] <= len(read) < runs[-1]["measurements"]["search"] + len(runs)


def test_the_model_is_rebuilt_from_the_store_to_the_last_digit(killed):
    _, predictions, _ = killed
    assert len(predictions) == BUDGET
    assert {made["provenance"] for made, _ in predictions} == {"modelled", "predicted"}
    for made, expected in predictions:
        assert made == expected


def test_counts_of_measured_and_saved_stay_those_of_the_store(killed):
    runs, _, _ = killed
    for run in runs:
        if run["agreement"] is None:
            continue
        found, latencies = run["agreement"], run["latencies"].values()
        predicted = sum(latency["provenance"] == "predicted" for latency in latencies)
        # Modelled ones are of the first few, before the model had learned.
        assert found["saved"] == predicted + sum(latency["provenance"] == "modelled" for latency in latencies)
        assert found["measured"] + found["measured_after_search"] + found["saved"] == len(run["latencies"])
        assert found["measured"] == run["measurements"]["search"]
    assert runs[-1]["agreement"]["saved"] > 0
    assert runs[-1]["agreement"]["measured_after_search"] > 0


def test_readings_after_the_search_are_kept_and_counted_in_one_step(killed):
    runs, _, kills = killed
    lost = 0
    for before, after in pairwise([{"measurements": {"settle": 0}, "settled": {}, "log": []}, *runs]):
        counted = after["measurements"]["settle"] - before["measurements"]["settle"]
        assert (counted > 0) == (after["settled"] != before["settled"])
        new = [len(line["ids"]) for line in after["log"][len(before["log"]) :] if line["when"] == "settling"]
        assert counted in (sum(new), sum(new[:-1]))
        lost += counted < sum(new)
    between = ("a reading of the settling", "before readings, settled", "after readings, settled, uncommitted")
    assert lost == sum(kill in between for kill in kills) > 0
