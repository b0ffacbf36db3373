import math
from dataclasses import replace

import numpy as np
import pytest

from latency_models.online import OnlineLatency
from nas.agreement import agreement
from nas.architecture import Architecture
from nas.data import Task
from nas.device import Device, Peaks
from nas.doubt import Guess, why_measure
from nas.evaluation import Evaluation, State
from nas.executor.in_process import InProcessExecutor
from nas.measurement import Estimate, Measurement, number_from_dict
from nas.objective import Objective
from nas.screen import Screen
from nas.search.driver import Driver
from nas.search.foresight import Foresight, Outlook, latency_of
from nas.search.front import complete, front_of
from nas.search.readings import agreement_of, measurements, renew_estimates
from nas.search.samplers import make_sampler
from nas.search.status import SearchLimits
from nas.store import StudyStore
from nas.testing.synthetic import MacsLatency, synthetic_evaluation, synthetic_key
from search_spaces.convnet import ConvNet

AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("latency_ms", "minimize", "ms", None, 0.2))
DEVICE = Device("fake", "x86_64", 1, peaks=Peaks(50.0, 150.0, 10.0, 1.0, "made up"))


def make_screen():
    space = ConvNet(Task("image_classification", 1, 10), (8,))
    return Screen(space, DEVICE, MacsLatency(), {}, AXES, margin=1.0)


def true_ms(graph):
    return 0.002 * len(graph.ops) + graph.macs / 4e7


class Candidates:
    """A worker that reads a latency only where the guess leaves a doubt, and remembers what it was sent."""

    def __init__(self, screen, dies_at=None):
        self.screen, self.dies_at, self.guesses = screen, dies_at, []

    def __call__(self, payload):
        if len(self.guesses) == self.dies_at:
            raise KeyboardInterrupt
        architecture = Architecture.from_dict(payload["architecture"])
        guess = Guess.from_dict(payload["guesses"][""])
        self.guesses.append(guess)
        made = synthetic_evaluation(self.screen, architecture)
        ms = true_ms(self.screen.space.lower(architecture))
        reading = Measurement(ms, ms, 0.01 * ms, 200, 5, "ms", "d", "r", 0.0, 1.0, 0.01)
        latency = reading if why_measure(guess, made.values, AXES) else guess.estimate
        noted = {"latency_ms": latency, "predicted_latency_ms": guess.estimate}
        values = {**made.values, **{name: number.value for name, number in noted.items()}}
        provenance = {name: number.to_dict() for name, number in noted.items()}
        return replace(made, values=values, provenance=provenance).to_dict()


def search(path, budget=24, dies_at=None):
    screen, store = make_screen(), StudyStore(path / "store.sqlite")
    store.put("config", {"cost": {"mode": "auto"}})
    job = Candidates(screen, dies_at)
    foresight = Foresight(OnlineLatency(MacsLatency()), screen, 0.001)
    driver = Driver(
        "study", screen, AXES, lambda seed: make_sampler("random", seed), synthetic_key, store, InProcessExecutor(job),
        SearchLimits(budget), outlook=Outlook({"": foresight}),
    )  # fmt: skip
    return driver, store, job, foresight


def test_a_search_measures_some_and_predicts_the_others_and_each_says_which(tmp_path):
    driver, store, job, _ = search(tmp_path)
    driver.run()
    members = complete(store)
    kinds = [evaluation.provenance["latency_ms"]["provenance"] for _, evaluation in members]
    assert 6 <= kinds.count("measured") < len(kinds) == 24
    assert set(kinds) == {"measured", "predicted"}
    assert [guess.estimate.kind for guess in job.guesses[:6]] == ["modelled"] * 6
    assert {guess.estimate.kind for guess in job.guesses[6:]} == {"predicted"}
    found = agreement_of(store)
    assert (found.measured, found.saved, found.later) == (kinds.count("measured"), kinds.count("predicted"), 0)
    assert measurements(store) == {"search": found.measured, "drift": 0, "settle": 0}
    # The first six were said by a model that knew nothing, and count as no prediction.
    assert len(found.pairs) == found.measured - 6


def test_what_was_saved_costs_no_hypervolume_worth_mentioning(tmp_path):
    driver, store, _, _ = search(tmp_path, 40)
    driver.run()
    screen = make_screen()
    truth = {number: true_ms(screen.space.lower(e.architecture)) for number, e in complete(store)}
    missed = [
        (number, evaluation)
        for number, evaluation in front_of(
            [(n, replace(e, values={**e.values, "latency_ms": truth[n]})) for n, e in complete(store)], AXES
        )
        if number not in dict(front_of(complete(store), AXES))
    ]
    assert len(missed) <= 2


def test_after_a_kill_the_model_is_made_anew_from_what_the_store_holds(tmp_path):
    driver, store, _, _ = search(tmp_path, 24, dies_at=15)
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    store.close()
    driver, store, job, foresight = search(tmp_path, 24)
    taught = Foresight(OnlineLatency(MacsLatency()), make_screen(), 0.001)
    known = complete(store)
    assert len(known) == 15
    taught.learn(evaluation for _, evaluation in known)
    some = known[0][1].architecture
    assert foresight.predict(some) == taught.predict(some)
    driver.run()
    assert job.guesses[0].estimate.kind == "predicted"
    after = dict(complete(store))
    assert len(after) == 24
    for number, evaluation in known:
        assert after[number].provenance == evaluation.provenance


def test_rivals_are_the_front_with_what_nobody_measured_predicted_anew(tmp_path):
    driver, store, _, foresight = search(tmp_path)
    driver.run()
    members = complete(store)
    guess = foresight.guess(members[0][1].architecture, members)
    renewed = dict(foresight.renewed(members))
    assert {rival.trial for rival in guess.rivals} == set(dict(front_of(list(renewed.items()), AXES)))
    for rival in guess.rivals:
        latency = latency_of(renewed[rival.trial])
        assert rival.values["latency_ms"] == latency.value
        assert (rival.worst_ms > latency.value) == isinstance(latency, Estimate)


def test_estimates_are_renewed_in_the_store_and_never_become_measurements(tmp_path):
    driver, store, _, foresight = search(tmp_path)
    driver.run()
    before = dict(complete(store))
    renew_estimates(store, foresight)
    after = dict(complete(store))
    changed = 0
    for number, evaluation in after.items():
        first, now = latency_of(before[number]), latency_of(evaluation)
        assert type(first) is type(now)
        if isinstance(now, Estimate):
            assert now.kind == "predicted"
            assert number_from_dict(evaluation.provenance["search_latency_ms"]) == first
            changed += now.mean != first.mean
        else:
            assert now == first
    assert changed


def test_infeasible_candidates_that_were_measured_teach_too():
    screen = make_screen()
    foresight = Foresight(OnlineLatency(MacsLatency(), fewest=4), screen)
    job = Candidates(screen)
    rng = np.random.default_rng(0)
    drawn = [screen.space.sample(rng) for _ in range(5)]
    guess = Guess(Estimate(1.0, math.inf, "ms", "m", "d", "modelled")).to_dict()
    made = [Evaluation.from_dict(job({"architecture": one.to_dict(), "guesses": {"": guess}})) for one in drawn]
    foresight.learn(replace(one, state=State.INFEASIBLE) for one in made[:4])
    assert foresight.predict(drawn[4]).kind == "predicted"


def test_what_agreement_counts(tmp_path):
    driver, store, _, _ = search(tmp_path)
    driver.run()
    members = complete(store)
    number, unread = next((n, e) for n, e in members if isinstance(latency_of(e), Estimate))
    reading = Measurement(0.05, 0.05, 0.001, 9, 1, "ms", "d", "r", 0.0)
    store.put("settled", {str(number): reading.to_dict()})
    found, earlier = agreement_of(store), agreement(members)
    assert (found.later, found.saved) == (1, earlier.saved - 1)
    last = found.pairs[-1]
    assert (last.trial, last.after_search, last.measured_ms) == (number, True, 0.05)
    assert last.predicted_ms == unread.values["predicted_latency_ms"]
    assert f"{found.saved} measurements were saved" in found.sentence
    assert found.to_dict()["measured_after_search"] == 1
