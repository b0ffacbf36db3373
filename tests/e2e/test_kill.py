"""Kill -9 at random points of a search: what was acknowledged is there, nothing is left running, no worker survives."""

import contextlib
import os
import random
import subprocess
import sys
import time
import uuid
from pathlib import Path

import optuna
import pytest

from nas.store import StudyStore, check_integrity

PROGRAM = Path(__file__).with_name("killed_search.py")
KILLS = 20


def marked(mark):
    """Process ids whose environment holds the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def run_and_kill(folder, mark, rng, known):
    """Start the search, kill it a random time later, and return the largest acknowledged count.

    The time counts from its first word, which finds a start under way, or, where ``known`` is a count, from the first
    acknowledgment beyond it, however slow the machine is.
    """
    environment = {**os.environ, "NAS_TEST_MARK": mark}
    child = subprocess.Popen(
        [sys.executable, PROGRAM, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    lines = [child.stdout.readline()]
    while known is not None and lines[-1] and int(lines[-1].split()[1]) <= known:
        lines.append(child.stdout.readline())
    time.sleep(rng.uniform(0.0, 2.5))
    child.kill()
    output, errors = child.communicate()
    lines += output.splitlines(keepends=True)
    assert child.returncode == -9, errors
    # A line that the kill cut short was not said.
    return max(int(line.split()[1]) for line in lines if line.endswith("\n"))


@pytest.mark.timeout(400)
def test_nothing_acknowledged_is_lost_over_twenty_kills(tmp_path):
    rng, mark = random.Random(7), uuid.uuid4().hex
    earlier = []
    for kill in range(KILLS):
        acknowledged = run_and_kill(tmp_path, mark, rng, len(earlier) if kill % 2 else None)
        assert check_integrity(tmp_path / "store.sqlite") == "ok"
        store = StudyStore(tmp_path / "store.sqlite")
        records = list(store.trials())
        store.close()
        assert [record.number for record in records] == list(range(len(records)))
        assert len(records) >= acknowledged
        kept = [record.evaluation.architecture.id for record in records]
        assert kept[: len(earlier)] == earlier
        earlier = kept
    assert len(earlier) > KILLS
    assert len(set(earlier)) == len(earlier)
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'optuna.sqlite3'}")
    mirrored = [trial.user_attrs["architecture"] for trial in study.trials]
    # The mirror is told after the store: the last kill may have come between the two.
    assert mirrored in (earlier, earlier[:-1])
    assert not any(trial.state is optuna.trial.TrialState.RUNNING for trial in study.trials)
    deadline = time.monotonic() + 10
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marked(mark) == []
