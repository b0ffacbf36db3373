import json

import numpy as np
import pytest

from nas.accuracy.combined import DEFAULT, rank_product, rank_product_within
from nas.accuracy.population import Population
from nas.accuracy.zero_cost import ZeroCost, make_proxy
from nas.config.build import run_search
from nas.config.compose import Request, resolve
from nas.data.digits import Digits
from nas.errors import CandidateError, ConfigError
from search_spaces.toy import Toy

NAMES = ("a", "b")


def test_ranks_within_a_population_order_as_ranks_among_all_do():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    scores = {name: truth + 0.5 * rng.normal(size=400) for name in NAMES}
    members = {name: score[:100] for name, score in scores.items()}
    within = rank_product_within(members, {name: score[100:] for name, score in scores.items()}, NAMES)
    among = rank_product(scores, NAMES)[100:]
    assert np.corrcoef(np.argsort(np.argsort(within)), np.argsort(np.argsort(among)))[0, 1] > 0.99


def test_a_score_has_the_place_that_its_population_gives_it():
    members = {"a": [3.0, 1.0, 2.0, 2.0]}
    found = np.exp(rank_product_within(members, {"a": [1.0, 1.5, 2.0, 3.0]}, ("a",)))
    # Two equal ones share ranks 2 and 3; half-way between scores is half-way between their ranks.
    assert found * 5 == pytest.approx([1.0, 1.75, 2.5, 4.0])


def test_beyond_the_population_more_is_still_better_but_never_by_a_whole_rank():
    members = {"a": [1.0, 2.0, 3.0, 4.0]}
    given = [-1e9, -1.0, 0.5, 1.0, 4.0, 4.5, 6.0, 1e9]
    places = 5 * np.exp(rank_product_within(members, {"a": given}, ("a",)))
    assert (np.diff(places) > 0).all()
    assert places[0] == pytest.approx(0.5)
    assert places[3] == pytest.approx(1.0)
    assert places[4] == pytest.approx(4.0)
    assert places[-1] == pytest.approx(5.0)


def test_a_population_of_equal_scores_says_nothing_within_and_something_beyond():
    low, same, high = rank_product_within({"a": [2.0, 2.0]}, {"a": [1.0, 2.0, 3.0]}, ("a",))
    assert low < same < high


@pytest.fixture(scope="module")
def digits():
    return Digits((8,)).load()


def test_a_population_is_scored_once_and_kept(tmp_path, digits, monkeypatch):
    space, population = Toy(digits.task, (8,)), Population(tmp_path / "population.json", members=8)
    population.prepare(space, digits, seed=0, pictures=8)
    kept = json.loads(population.path.read_text())
    assert {name: len(scores) for name, scores in kept.items()} == dict.fromkeys(DEFAULT, 8)
    again = Population(population.path, members=8)
    monkeypatch.setattr(space, "sample", None)  # nothing is drawn any more
    again.prepare(space, digits, seed=0, pictures=8)
    best = {name: max(scores) for name, scores in kept.items()}
    worst = {name: min(scores) for name, scores in kept.items()}
    assert 0 < again.combined(worst) < again.combined(best) < 1
    with pytest.raises(CandidateError, match="combined needs swap, meco"):
        again.combined({"expressivity": 1.0})


def test_a_population_of_too_few_networks_is_refused(tmp_path, digits):
    population = Population(tmp_path / "population.json", members=3)
    with pytest.raises(ConfigError, match="only 3 have all of expressivity, swap, meco"):
        population.prepare(Toy(digits.task, (8,)), digits, seed=0, pictures=8)
    with pytest.raises(ConfigError, match=r"proxies=\[combined\] makes them"):
        population.combined(dict.fromkeys(DEFAULT, 0.0))


def test_combined_is_a_name_for_configs_and_no_score_of_one_network():
    assert ZeroCost("combined").key != ZeroCost("naswot").key
    with pytest.raises(ConfigError, match="within a population"):
        make_proxy("combined")
    with pytest.raises(ConfigError, match="Did you mean 'combined'"):
        make_proxy("combine")


SEARCH = (
    *("data=digits", "data.resolutions=[8]", "space=toy", "executor=in_process", "tracking=none", "cost=predicted"),
    *("sampler=random", "budget=4", "calibration_images=16", "keep=all"),
)


def test_a_search_ranks_untrained_networks_by_the_combination(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("accuracy=zero_cost", "accuracy.proxy=combined", "objective=proxy_latency_size", "proxies=[]")
    report = run_search(resolve(Request("search", (*SEARCH, *words, "study=ranked"))))
    population = Population(tmp_path / "runs" / "ranked" / "population.json")
    assert report.front
    assert report.hypervolume > 0
    for _, evaluation in report.front:
        known = {name: evaluation.values[f"proxy_{name}"] for name in DEFAULT}
        assert evaluation.values["proxy_score"] == population.combined(known)


def test_a_search_that_trains_notes_the_combination(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("accuracy.epochs=1", "accuracy.warmup_epochs=0", "proxies=[combined,swap]", "drop_worst.combined=0.5")
    report = run_search(resolve(Request("search", (*SEARCH, *words, "study=noted"))))
    assert report.front
    for _, evaluation in report.front:
        scores = {name for name in evaluation.values if name.startswith("proxy_")}
        assert scores == {"proxy_combined", *(f"proxy_{name}" for name in DEFAULT)}
        assert "geometric mean" in evaluation.provenance["proxy_combined"]["how"]


def test_dropping_by_a_combination_that_nobody_computes_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="drop_worst names combined"):
        run_search(resolve(Request("search", (*SEARCH, "drop_worst.combined=0.5", "study=refused"))))
