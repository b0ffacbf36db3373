import os
import threading
import time

import pytest

from nas.errors import NasError
from nas.executor.gate import FileGate
from nas.executor.in_process import InProcessExecutor
from nas.executor.spawned import SpawnedExecutor
from nas.testing.jobs import make_misbehaving_job, misbehave


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    log = tmp_path_factory.mktemp("executor") / "workers.log"
    spawned = SpawnedExecutor(make_misbehaving_job, {}, memory_limit_mib=512, timeout_s=20.0, log=log)
    yield spawned
    spawned.close()


def run(executor, **payload):
    job = executor.submit(payload)
    (outcome,) = executor.wait(60.0)
    assert outcome.job == job
    return outcome


def test_a_healthy_job_runs_in_another_process(executor):
    outcome = run(executor, do="echo", value=[1.5, None])
    assert outcome.result["value"] == [1.5, None]
    assert outcome.result["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("deed", "kind", "words"),
    [
        ({"do": "segfault"}, "crash", "SIGSEGV"),
        ({"do": "kill"}, "crash", "SIGKILL"),
        ({"do": "exit", "code": 7}, "crash", "code 7"),
        ({"do": "allocate", "mib": 2048}, "memory", "memory"),
        ({"do": "nan"}, "nan", "NaN in epoch 1"),
        ({"do": "raise"}, "error", "ValueError: a bug in the candidate"),
    ],
)
def test_a_failure_is_an_outcome_with_its_reason_and_the_next_job_runs(executor, deed, kind, words):
    outcome = run(executor, **deed)
    assert (outcome.result, outcome.kind) == (None, kind)
    assert words in outcome.reason
    assert run(executor, do="echo").result is not None


def test_memory_within_the_limit_is_granted(executor):
    assert run(executor, do="allocate", mib=128).result["bytes"] == 128 * 2**20


def test_what_a_job_prints_goes_to_the_log(executor, capfd):
    assert run(executor, do="print").result is not None
    assert capfd.readouterr().out == ""


def test_a_hanging_job_is_killed_at_its_deadline_and_a_warm_worker_takes_the_next(tmp_path):
    spawned = SpawnedExecutor(make_misbehaving_job, {}, timeout_s=1.0)
    try:
        run(spawned, do="echo")
        deadline = time.monotonic() + 30
        while sum(worker.ready for worker in spawned._workers) < 2 and time.monotonic() < deadline:
            spawned._poll(0.1)
        warm = {worker.process.pid for worker in spawned._workers if worker.ready}
        assert len(warm) == 2
        started = time.monotonic()
        outcome = run(spawned, do="hang")
        # A limit that users rely on: 1 s, with room for a machine that is busy with other tests.
        assert time.monotonic() - started < 10.0
        assert outcome.kind == "timeout"
        assert "1 s" in outcome.reason
        next_one = run(spawned, do="echo").result["pid"]
        assert next_one in warm
        (killed,) = warm - {next_one}
        with pytest.raises(ProcessLookupError):
            os.kill(killed, 0)
    finally:
        spawned.close()


def test_a_job_that_cannot_be_built_says_why():
    spawned = SpawnedExecutor(make_misbehaving_job, {"fatal": "no data in this folder"})
    spawned.submit({"do": "echo"})
    with pytest.raises(NasError, match="no data in this folder"):
        spawned.wait(60.0)


def test_workers_that_die_while_starting_end_the_search():
    spawned = SpawnedExecutor(make_misbehaving_job, {"die": True})
    spawned.submit({"do": "echo"})
    with pytest.raises(NasError, match="died while starting"):
        spawned.wait(60.0)


def test_two_workers_run_side_by_side():
    spawned = SpawnedExecutor(make_misbehaving_job, {}, workers=2, standby=0)
    try:
        for _ in range(4):
            spawned.submit({"do": "echo"})
        outcomes = []
        while len(outcomes) < 4:
            outcomes += spawned.wait(30.0)
        assert sorted(outcome.job for outcome in outcomes) == [1, 2, 3, 4]
    finally:
        spawned.close()


def test_nothing_under_way_returns_at_once(executor):
    assert executor.wait(None) == []


def test_in_process_turns_errors_into_outcomes():
    executor = InProcessExecutor(misbehave)
    kinds = []
    for deed in ("echo", "nan", "raise"):
        executor.submit({"do": deed})
        kinds += [outcome.kind for outcome in executor.wait()]
    assert kinds == ["", "nan", "error"]
    assert executor.wait() == []


def test_the_gate_lets_steps_share_and_a_timing_be_alone(tmp_path):
    gate = FileGate("device/t1", tmp_path)
    inside, events = threading.Event(), []
    with gate.training(), FileGate("device/t1", tmp_path).training():
        thread = threading.Thread(target=lambda: _time(gate, events, inside))
        thread.start()
        assert not inside.wait(0.2)
        events.append("steps done")
    thread.join(5)
    assert events == ["steps done", "timed"]


def test_a_waiting_timing_is_not_starved_by_steps(tmp_path):
    gate, inside, stop = FileGate("device", tmp_path), threading.Event(), threading.Event()

    def train():
        while not stop.is_set():
            with gate.training():
                time.sleep(0.002)

    trainers = [threading.Thread(target=train) for _ in range(3)]
    for trainer in trainers:
        trainer.start()
    timer = threading.Thread(target=lambda: _time(gate, [], inside))
    timer.start()
    entered = inside.wait(10)
    stop.set()
    for thread in (*trainers, timer):
        thread.join(10)
    assert entered


def _time(gate, events, inside):
    with gate.timing():
        inside.set()
        events.append("timed")
