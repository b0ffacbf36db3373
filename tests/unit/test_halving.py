import numpy as np
import pytest

from nas.architecture import Architecture
from nas.data import Task
from nas.device import Device
from nas.errors import ConfigError
from nas.evaluation import EvaluationKey
from nas.executor.in_process import InProcessExecutor
from nas.objective import Objective
from nas.screen import Screen
from nas.search.driver import Driver
from nas.search.front import complete
from nas.search.halving import Halving, ranked
from nas.search.samplers import make_sampler
from nas.search.status import SearchLimits
from nas.search.worst import Threshold
from nas.store import StudyStore
from nas.testing.synthetic import MacsLatency, synthetic_evaluation
from search_spaces.toy import Toy

AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("size_kib", "minimize", "KiB", None, 20.0))
RUNGS = Halving((1, 3), population=6, keep=0.34)


def screen():
    space = Toy(Task("image_classification", 1, 10), (8,))
    return Screen(space, Device("fake", "x86_64", 1), MacsLatency(), {}, AXES, margin=1.0)


def key_of(architecture, rung=2):
    fidelity = "full" if rung >= 2 else f"full@{RUNGS.rungs[rung]}"
    return EvaluationKey(architecture.id, fidelity, "d", "r")


class Job:
    """Evaluates by a formula and remembers (architecture, rung) of each call; dies after ``lives`` of them."""

    def __init__(self, lives=None):
        self.calls, self.lives, self.screen = [], lives, screen()

    def __call__(self, payload):
        if self.lives is not None and len(self.calls) >= self.lives:
            raise KeyboardInterrupt
        architecture = Architecture.from_dict(payload["architecture"])
        rung = payload["rung"]
        self.calls.append((architecture.id, rung))
        assert ("known" in payload) == (rung > 0)
        made = synthetic_evaluation(self.screen, architecture)
        return {**made.to_dict(), "key": str(key_of(architecture, rung))}


def search(folder, job, budget=12, halving=RUNGS, **kwargs):
    store = StudyStore(folder / "store.sqlite")
    made = Driver(
        "s",
        screen(),
        AXES,
        lambda seed: make_sampler("random", seed),
        key_of,
        store,
        InProcessExecutor(job),
        SearchLimits(budget),
        halving=halving,
        **kwargs,
    )
    return made, store


def test_a_front_comes_first_and_within_it_the_widest_gap():
    losses = [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [0.45, 0.56], [2.0, 2.0], [0.9, 1.1]]
    order = ranked(losses)
    assert set(order[:4]) == {0, 1, 2, 3}
    assert set(order[:2]) == {0, 1}, "the extremes of a front are the widest"
    assert order[-1] == 4


def test_ranking_agrees_with_dominance_on_random_losses():
    losses = np.random.default_rng(0).random((40, 3))
    order = ranked(losses)
    assert sorted(order) == list(range(40))
    position = {index: place for place, index in enumerate(order)}
    for a in range(40):
        for b in range(40):
            if (losses[a] <= losses[b]).all() and (losses[a] < losses[b]).any():
                assert position[a] < position[b]


def test_a_population_is_thinned_at_each_rung_and_only_the_top_is_complete(tmp_path):
    job = Job()
    driver, store = search(tmp_path, job)
    assert "budget of 12" in driver.run()
    by_rung = [sum(rung == level for _, rung in job.calls) for level in (0, 1, 2)]
    assert by_rung == [12, 4, 2]  # two populations of 6, of which 2 and then 1 climb
    counts = store.counts()
    assert (counts["pruned"], counts["complete"]) == (10, 2)
    assert len(complete(store)) == 2
    for record in store.trials():
        if record.state == "pruned":
            assert record.optuna["state"] == "PRUNED"
            assert "accuracy" in record.evaluation.values
            assert record.evaluation.key.fidelity in ("full@1", "full@3")
            assert "epochs" in record.evaluation.reason
    assert store.get("ladder")["climbers"] == []


def test_who_climbs_is_on_the_front_of_its_population(tmp_path):
    driver, store = search(tmp_path, Job(), budget=6)
    driver.run()
    (best,) = complete(store)
    for record in store.trials():
        if record.state == "pruned":
            rival = record.evaluation.values
            mine = best[1].values
            assert not (
                rival["accuracy"] >= mine["accuracy"]
                and rival["size_kib"] <= mine["size_kib"]
                and (rival["accuracy"], rival["size_kib"]) != (mine["accuracy"], mine["size_kib"])
            )


@pytest.mark.parametrize("lives", [1, 4, 6, 7, 9, 15])
def test_a_search_that_died_between_rungs_goes_on_with_what_had_landed(tmp_path, lives):
    first = Job(lives)
    driver, store = search(tmp_path, first)
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    store.close()
    second = Job()
    driver, store = search(tmp_path, second)
    driver.run()
    calls = first.calls + second.calls
    assert len(calls) == len(set(calls)), "no rung of a candidate is evaluated twice"
    assert [sum(rung == level for _, rung in calls) for level in (0, 1, 2)] == [12, 4, 2]
    assert store.counts()["complete"] == 2


def test_a_kill_between_acknowledging_and_noting_repeats_nothing(tmp_path):
    job = Job(9)
    driver, store = search(tmp_path, job)
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    ladder = store.get("ladder")
    # As if the kill had come after a pruned candidate's trial was written and before the ladder was.
    (stopped,) = [record for record in store.trials() if record.state == "pruned"][:1]
    architecture = stopped.evaluation.architecture.to_dict()
    late = {
        "architecture": architecture,
        "params": {},
        "population": 0,
        "rung": 0,
        "evaluation": stopped.evaluation.to_dict(),
        "waiting": True,
    }
    store.put("ladder", {**ladder, "climbers": [*ladder["climbers"], late]})
    store.close()
    driver, store = search(tmp_path, Job())
    driver.run()
    ids = [record.evaluation.architecture.id for record in store.trials() if record.state != "duplicate"]
    assert len(ids) == len(set(ids))


def test_what_was_pruned_is_known_and_not_trained_again(tmp_path):
    job = Job()
    driver, store = search(tmp_path, job, budget=10_000)
    assert "every architecture" in driver.run()
    assert len(job.calls) == len(set(job.calls))
    everything = len(list(screen().space.enumerate()))
    assert sum(rung == 0 for _, rung in job.calls) == everything
    assert store.counts()["pruned"] + store.counts()["complete"] == everything


def test_when_the_hours_are_spent_nothing_climbs_and_nothing_is_lost(tmp_path):
    store = StudyStore(tmp_path / "store.sqlite")
    job = Job()
    driver, _ = search(tmp_path, job, budget=100)
    driver._limits = SearchLimits(100, hours=1e-9)
    assert "hours" in driver.run()
    assert job.calls == []
    driver, store = search(tmp_path, job, budget=100)
    seen = iter([0.0] * 5 + [10.0] * 1000)
    driver._limits = SearchLimits(100, hours=1.0)
    driver._out_of_time = lambda: next(seen) > 1
    assert "hours" in driver.run()
    assert store.counts() == {"pruned": len(job.calls)}
    assert all("hours" in record.evaluation.reason for record in store.trials())


@pytest.mark.parametrize(
    ("given", "said"),
    [({"rungs": (3, 1)}, "growing"), ({"rungs": (0,)}, "growing"), ({"rungs": (1,), "keep": 1.0}, "below 1")],
)
def test_rungs_that_make_no_sense_are_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        Halving(**given)


def test_the_worst_share_of_the_scores_is_not_trained_once_enough_are_known(tmp_path):
    threshold = Threshold({"naswot": 0.5}, fewest=4)
    for score in (1.0, 2.0, 3.0):
        threshold.note({"proxy_naswot": score})
    assert threshold.least() == {}
    threshold.note({"proxy_naswot": 4.0})
    threshold.note({"other": 0.0})
    assert threshold.least() == {"proxy_naswot": 2.5}
    with pytest.raises(ConfigError, match=r"drop_worst.naswot=50"):
        Threshold({"naswot": 50})


def test_dropped_candidates_cost_no_budget_and_are_told_apart(tmp_path):
    checks = screen()
    least = []

    def job(payload):
        evaluation = synthetic_evaluation(checks, Architecture.from_dict(payload["architecture"]))
        score = evaluation.values["macs"]
        bound = payload.get("least", {}).get("proxy_macs", 0.0)
        least.append(bound)
        values = {**evaluation.values, "proxy_macs": score}
        result = {**evaluation.to_dict(), "values": values, "key": str(key_of(evaluation.architecture))}
        if score < bound:
            return {**result, "state": "infeasible", "constraints": {"proxy_macs": bound - score}, "reason": "worst"}
        return result

    driver, store = search(tmp_path, job, budget=20, halving=None, threshold=Threshold({"macs": 0.5}, fewest=6))
    driver.run()
    counts = store.counts()
    assert counts["complete"] == 20
    assert counts["infeasible"] >= 4
    assert least[:6] == [0.0] * 6
