import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from nas.data import Task
from nas.device import Device
from nas.errors import CandidateError, ConfigError, MeasurementError, NasError
from nas.executor.in_process import InProcessExecutor
from nas.objective import Objective
from nas.screen import Screen
from nas.search.ask_tell import OptunaMirror, freeze, thaw
from nas.search.driver import Driver
from nas.search.front import complete, front_of, hypervolume_history, hypervolume_of, resolve_references, round_up
from nas.search.knowledge import problem_of
from nas.search.samplers import SAMPLERS, make_sampler
from nas.search.status import SearchLimits
from nas.store import StudyStore
from nas.testing.synthetic import MacsLatency, synthetic_evaluation, synthetic_job, synthetic_key
from search_spaces.toy import Toy

GOLDEN = Path(__file__).parents[1] / "golden" / "toy_front.json"
AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("size_kib", "minimize", "KiB", None, 20.0))


def screen(objectives=AXES, **limits):
    space = Toy(Task("image_classification", 1, 10), (8,))
    return Screen(space, Device("fake", "x86_64", 1), MacsLatency(), limits, objectives, margin=1.0)


def driver(path, budget=15, sampler="random", job=None, objectives=AXES, limits=None, seed=0, **kwargs):
    checks = screen(objectives, **(limits or {}))
    store = StudyStore(path / "store.sqlite")
    executor = InProcessExecutor(job or synthetic_job(checks))
    made = Driver(
        "study",
        checks,
        objectives,
        lambda number: make_sampler(sampler, number, None, problem_of(checks, True)),
        synthetic_key,
        store,
        executor,
        SearchLimits(budget, **kwargs.pop("ends", {})),
        seed=seed,
        **kwargs,
    )
    return made, store


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_spends_the_budget_on_distinct_architectures(tmp_path, sampler):
    budget = 13 if sampler == "gp" else 25  # a proposal of the GP takes a second
    search, store = driver(tmp_path, budget, sampler)
    assert f"budget of {budget}" in search.run()
    evaluated = [record.evaluation.architecture.id for record in store.trials() if record.state == "complete"]
    assert len(evaluated) == len(set(evaluated)) == budget
    assert all(record.duplicate_of is not None for record in store.trials() if record.state == "duplicate")


def test_an_exhausted_space_gives_the_golden_front_and_stops(tmp_path):
    search, store = driver(tmp_path, 10_000)
    assert "every architecture" in search.run()
    found = {
        evaluation.architecture.id: [round(evaluation.values[o.metric], 9) for o in AXES]
        for _, evaluation in front_of(complete(store), AXES)
    }
    checks = screen()
    everything = [(0, synthetic_evaluation(checks, a)) for a in checks.space.enumerate()]
    assert len(complete(store)) == len(everything)
    assert sorted(found) == sorted(e.architecture.id for _, e in front_of(everything, AXES))
    assert found == json.loads(GOLDEN.read_text())


def test_a_second_run_goes_on_where_the_first_ended(tmp_path):
    search, store = driver(tmp_path, 8)
    search.run()
    before = [record.evaluation.architecture.id for record in store.trials() if record.state == "complete"]
    store.close()
    search, store = driver(tmp_path, 12)
    search.run()
    after = [record.evaluation.architecture.id for record in store.trials() if record.state == "complete"]
    assert after[:8] == before
    assert len(set(after)) == 12
    search, _ = driver(tmp_path, 12)
    assert "budget" in search.run()


def test_failures_are_recorded_with_their_reason_and_count(tmp_path):
    checks = screen()
    healthy = synthetic_job(checks)

    def job(payload):
        if payload["architecture"]["choices"]["kernel"] == 5:
            raise CandidateError("nan", "the loss is NaN")
        return healthy(payload)

    search, store = driver(tmp_path, 12, "tpe", job)
    search.run()
    failed = [record for record in store.trials() if record.state == "failed"]
    assert failed
    assert {record.evaluation.reason for record in failed} == {"nan: the loss is NaN"}
    assert {record.optuna["state"] for record in failed} == {"FAIL"}
    assert store.counts()["complete"] + len(failed) == 12


def test_a_machine_that_fails_ends_the_search_and_leaves_no_failed_candidate(tmp_path):
    def job(payload):
        raise MeasurementError("the disk is full")

    search, store = driver(tmp_path, 12, job=job)
    with pytest.raises(NasError, match=r"the disk is full\. Nothing that was evaluated is lost"):
        search.run()
    assert list(store.trials()) == []


def test_a_result_of_another_candidate_is_a_failure_of_this_one(tmp_path):
    checks = screen()
    other = synthetic_evaluation(checks, next(iter(checks.space.enumerate()))).to_dict()
    search, store = driver(tmp_path, 4, job=lambda payload: {**other, "seconds": {"x": 1.0}})
    search.run()
    failed = [record.evaluation.reason for record in store.trials() if record.state == "failed"]
    assert len(failed) >= 3
    assert set(failed) == {"crash: its result was malformed"}


def test_what_the_screen_refuses_costs_no_budget_and_tells_the_sampler_how_far_off(tmp_path):
    bounded = (AXES[0], replace(AXES[1], bound=1.2))
    search, store = driver(tmp_path, 6, "tpe", objectives=bounded)
    search.run()
    refused = [r for r in store.trials() if r.state == "infeasible" and r.evaluation is not None]
    assert refused
    assert store.counts()["complete"] == 6
    for record in refused:
        assert "size_kib" in record.evaluation.reason
        frozen = thaw(record.optuna)
        assert frozen.state is optuna.trial.TrialState.PRUNED
        assert frozen.constraints["size_kib"] == pytest.approx(record.evaluation.values["weights_kib"] - 1.2)
    assert all(e.values["size_kib"] <= 1.2 for _, e in complete(store))


def test_impossible_limits_end_the_search_with_the_reason(tmp_path):
    search, store = driver(tmp_path, 5, limits={"macs": 1}, ends={"refusals_in_a_row": 40})
    assert "40 proposals in a row were refused" in search.run()
    assert store.counts().get("complete", 0) == 0


def test_the_hours_end_the_search_and_add_up_over_runs(tmp_path):
    search, store = driver(tmp_path, 1000)
    store.put("elapsed_s", 3600.0)
    search, _ = driver(tmp_path, 1000, ends={"hours": 1.0})
    assert "1 hours" in search.run()


def test_the_mirror_holds_the_same_trials_for_optunas_own_tools(tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.sqlite3'}"
    bounded = (AXES[0], replace(AXES[1], bound=2.0))
    search, store = driver(tmp_path, 6, "nsga2", objectives=bounded, mirror=OptunaMirror(url, "study", bounded))
    search.run()
    study = optuna.load_study(study_name="study", storage=url)
    records = list(store.trials())
    assert [freeze(trial)["params"] for trial in study.trials] == [dict(r.optuna["params"]) for r in records]
    assert not any(trial.state is optuna.trial.TrialState.RUNNING for trial in study.trials)
    assert study.metric_names == ["accuracy", "size_kib"]
    assert [trial.constraints for trial in study.trials] == [thaw(r.optuna).constraints for r in records]
    assert study.best_trials


def test_a_storage_that_is_down_is_caught_up_later(tmp_path, monkeypatch):
    folder = tmp_path / "later"
    mirror = OptunaMirror(f"sqlite:///{folder / 'optuna.sqlite3'}", "study", AXES)
    search, store = driver(tmp_path, 4, mirror=mirror)
    search.run()
    assert mirror.error
    folder.mkdir()
    mirror.sync(list(store.trials()))
    assert mirror.error, "it rests after a failure"
    monkeypatch.setattr("nas.search.ask_tell.time.monotonic", lambda: 1e12)
    mirror.sync(list(store.trials()))
    assert not mirror.error
    loaded = optuna.load_study(study_name="study", storage=f"sqlite:///{folder / 'optuna.sqlite3'}")
    assert len(loaded.trials) == len(list(store.trials()))


@pytest.mark.parametrize("url", ["nosuchdb://nas:secret@host/base", "not a url"])
def test_a_storage_that_can_never_be_reached_is_refused_without_its_password(url):
    with pytest.raises(ConfigError, match="Expected an SQLAlchemy URL") as refusal:
        OptunaMirror(url, "study", AXES).check()
    assert "secret" not in str(refusal.value)


def test_observers_see_every_finished_trial(tmp_path):
    seen = []
    search, _ = driver(tmp_path, 5, observers=(seen.append,))
    search.run()
    assert [status.evaluated for status in seen][-1] == 5
    assert seen[-1].hypervolume > seen[0].hypervolume == 0.0


def test_an_unknown_sampler_or_option_gets_the_corrected_spelling():
    with pytest.raises(ConfigError, match="Did you mean 'random'"):
        make_sampler("randon", 0)
    with pytest.raises(ConfigError, match="population_size"):
        make_sampler("nsga2", 0, {"population": 3})


def test_references_are_the_same_for_every_search_of_a_space_and_device():
    open_axes = (replace(AXES[0], reference=None), replace(AXES[1], reference=None))
    first, again = (resolve_references(open_axes, screen(open_axes)) for _ in range(2))
    assert first == again
    assert first[0].reference == 0.0
    assert first[1].reference == round_up(first[1].reference)
    bounded = (open_axes[0], replace(open_axes[1], bound=3.0))
    assert resolve_references(bounded, screen(bounded))[1].reference == 3.0


@pytest.mark.parametrize(("value", "rounded"), [(0.7, 1.0), (1.0, 1.0), (1.01, 2.0), (230.0, 500.0), (0.0041, 0.005)])
def test_round_up_follows_the_series(value, rounded):
    assert round_up(value) == pytest.approx(rounded)


def test_the_hypervolume_history_grows_to_the_fronts(tmp_path):
    search, store = driver(tmp_path, 20)
    search.run()
    members = complete(store)
    history = hypervolume_history(members, AXES, 40)
    volumes = [volume for _, volume in history]
    assert volumes == sorted(volumes)
    assert history[-1] == (40, pytest.approx(hypervolume_of(members, AXES)))
