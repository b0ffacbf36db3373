"""``cost=auto`` as a user runs it: some latencies measured, the others predicted, the front measured whole."""

import json
import subprocess
import sys

import pytest

from nas.search.front import complete, snapshot_of
from nas.store import StudyStore
from nas.tracking.report import write_files

WORDS = ("experiment=digits_toy", "cost=auto", "cost.learner.fewest=4", "study=auto", "output=json")
QUICK = ("executor=in_process", "accuracy.epochs=2", "proxies=[]", "calibration_images=8")


def search(folder, *words):
    command = [sys.executable, "-m", "nas", "search", *WORDS, *QUICK, *words]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=280, check=False)
    # A busy machine may fail the export, with its advice; the search is whole then.
    assert run.returncode == 0 or "as a ratio to the anchor model" in run.stderr, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def kill_at(folder, line, *words):
    """Kill a search with signal 9 when it has said a line that begins so, and return the trials that are kept."""
    command = [sys.executable, "-m", "nas", "search", *WORDS, *QUICK, *words, "progress=plain"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder)
    said = [next(said for said in child.stderr if said.startswith(line))]
    child.kill()
    said += child.communicate()[1].splitlines()
    assert child.returncode == -9, said
    store = StudyStore(folder / "runs" / "auto" / "store.sqlite")
    trials = list(store.trials())
    store.close()
    return trials


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search that was killed, ended and went on: (folder, its last report, its trials when it was killed)."""
    folder = tmp_path_factory.mktemp("auto")
    kept = kill_at(folder, "[5/6]", "budget=6")
    search(folder, "budget=6")
    return folder, search(folder, "budget=9"), kept


def test_what_was_measured_before_a_kill_is_kept(finished):
    folder, _, kept = finished
    assert len(kept) >= 5
    store = StudyStore(folder / "runs" / "auto" / "store.sqlite")
    trials = list(store.trials())
    store.close()
    assert trials[: len(kept)] == kept
    # Of the first four each was measured, so what is predicted after the kill has learned from them.
    assert {one.evaluation.provenance["predicted_latency_ms"]["provenance"] for one in trials[5:]} == {"predicted"}


def test_the_front_is_measured_and_the_report_counts_what_was_and_what_was_saved(finished):
    folder, report, _ = finished
    assert {member["provenance"]["latency_ms"] for member in report["front"]} == {"measured"}
    prediction = report["prediction"]
    whole = prediction["measured"] + prediction["measured_after_search"] + prediction["saved"]
    assert whole == report["trials"]["complete"] == 9
    assert prediction["measured"] >= 4
    assert report["measurements"]["search"] == prediction["measured"]
    assert report["measurements"]["settle"] >= 2 * len(report["front"])
    store = StudyStore(folder / "runs" / "auto" / "store.sqlite")
    for _, evaluation in complete(store):
        assert evaluation.provenance["latency_ms"]["provenance"] in ("measured", "predicted")
        assert evaluation.provenance["predicted_latency_ms"]["model"].startswith("online")
    store.close()


def test_its_page_shows_measured_against_predicted(finished, tmp_path):
    folder, report, _ = finished
    store = StudyStore(folder / "runs" / "auto" / "store.sqlite")
    write_files(snapshot_of(store, folder / "runs" / "auto"), tmp_path)
    store.close()
    assert (tmp_path / "predictions.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "predictions.html").read_text().replace(r"\u003cbr\u003e", " ")
    assert "measured against predicted" in page
    assert f"{report['prediction']['saved']} measurements were saved" in page


def test_what_only_a_measurement_can_give_is_refused_before_anything_is_spent(tmp_path):
    words = (*WORDS[:2], "objective=accuracy_latency_memory", "study=memory")
    run = subprocess.run(
        [sys.executable, "-m", "nas", "search", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=280,
        check=False,
    )
    assert run.returncode == 2
    assert "cost=auto predicts latency_ms alone, but memory_kib can only be measured" in run.stderr
