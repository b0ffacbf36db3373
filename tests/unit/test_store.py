import sqlite3
import subprocess
import sys
import textwrap

import pytest

from nas.architecture import Architecture, Precision
from nas.errors import StoreError
from nas.evaluation import Evaluation, EvaluationKey, State
from nas.store import StudyStore, check_integrity, open_study


def evaluation(index=0, state=State.COMPLETE, **values):
    architecture = Architecture("toy", {"width": index}, {"stem": Precision.INT8})
    key = EvaluationKey(architecture.id, "f", "d/t1", "r")
    return Evaluation(architecture, key, state, values or {"accuracy": 0.5}, seconds={"train": 1.5})


def test_a_trial_survives_reopening_with_all_its_fields(tmp_path):
    store = StudyStore(tmp_path / "s" / "store.sqlite")
    number = store.add_trial("complete", evaluation(3, accuracy=0.75, latency_ms=1.5), {"x": [1]}, facts={"e": 2.0})
    store.close()
    again = StudyStore(tmp_path / "s" / "store.sqlite")
    (record,) = again.trials()
    assert number == record.number == 0
    assert record.evaluation == evaluation(3, accuracy=0.75, latency_ms=1.5)
    assert record.optuna == {"x": [1]}
    assert again.get("e") == 2.0
    assert again.counts() == {"complete": 1}


def test_a_duplicate_refers_to_the_evaluation_that_answered_it(tmp_path):
    store = StudyStore(tmp_path / "store.sqlite")
    store.add_trial("complete", evaluation(1, accuracy=0.9), {})
    found = store.find(evaluation(1).key)
    assert found is not None
    assert found[0] == 0
    assert store.find(evaluation(2).key) is None
    assert store.add_trial("duplicate", found[1], {}, duplicate_of=0) == 1
    assert [record.duplicate_of for record in store.trials()] == [None, 0]
    assert store.find(evaluation(1).key)[0] == 0


def test_trial_evaluation_and_facts_are_one_transaction(tmp_path):
    store = StudyStore(tmp_path / "store.sqlite")
    with pytest.raises(TypeError):
        store.add_trial("complete", evaluation(1), {}, facts={"bad": object()})
    assert list(store.trials()) == []
    assert store.find(evaluation(1).key) is None
    assert store.add_trial("complete", evaluation(1), {}) == 0


def test_a_file_that_is_no_store_is_refused(tmp_path):
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="not a store"):
        StudyStore(path)


def test_a_newer_format_is_refused(tmp_path):
    store = StudyStore(tmp_path / "store.sqlite")
    store.put("format", 99)
    store.close()
    with pytest.raises(StoreError, match="format 99"):
        StudyStore(tmp_path / "store.sqlite")


def test_an_unknown_study_names_those_that_exist(tmp_path):
    StudyStore(tmp_path / "digits" / "store.sqlite").close()
    with pytest.raises(StoreError, match="have digits"):
        open_study(tmp_path, "digit")
    assert open_study(tmp_path, "digits").counts() == {}
    assert open_study(tmp_path, str(tmp_path / "digits")).counts() == {}


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    path = tmp_path / "store.sqlite"
    program = textwrap.dedent(
        """
        import sys, pathlib
        from nas.store import StudyStore
        store = StudyStore(pathlib.Path(sys.argv[1]))
        while True:
            print(store.add_trial("complete", None, {"filler": "x" * 2000}), flush=True)
        """
    )
    for attempt in range(3):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(5 + 7 * attempt)]
        child.kill()
        lines += child.stdout.readlines()
        child.wait()
        acknowledged = max(int(line) for line in lines if line.endswith("\n"))
        assert check_integrity(path) == "ok"
        numbers = [record.number for record in StudyStore(path).trials()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)
