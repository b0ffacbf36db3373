import pytest

from nas.config.build import run_search
from nas.config.compose import Request, resolve
from nas.errors import ConfigError
from nas.search.front import eligible, front_of, study_objectives
from nas.store import StudyStore

QUICK = (
    "space=toy",
    "accuracy=zero_cost",
    "objective=proxy_latency_size",
    "cost=predicted",
    "tracking=none",
    "proxies=[params]",
)


def search(folder, *words):
    run_search(resolve(Request("search", (*QUICK, f"folder={folder}", *words))))


def trials(folder, study):
    return list(StudyStore(folder / study / "store.sqlite").trials())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    search(folder, "study=earlier", "executor=in_process", "budget=8")
    return folder


def front(folder):
    store = StudyStore(folder / "earlier" / "store.sqlite")
    objectives = study_objectives(store)
    return [evaluation.architecture.id for _, evaluation in front_of(eligible(store, objectives), objectives)]


def test_the_front_of_an_earlier_study_is_evaluated_first(folder):
    members = front(folder)
    words = ("study=later", "executor=in_process", "seed=7", "start_from=earlier")
    search(folder, *words, f"budget={len(members) + 1}")
    states = trials(folder, "later")
    assert [record.evaluation.architecture.id for record in states[: len(members)]] == members
    assert len(states) > len(members)


def test_a_search_that_goes_on_evaluates_each_first_candidate_once(folder):
    members = front(folder)
    words = ("study=cut", "executor=in_process", "seed=7", "start_from=earlier")
    search(folder, *words, "budget=1")
    search(folder, *words, f"budget={len(members)}")
    assert [record.evaluation.architecture.id for record in trials(folder, "cut")] == members


def test_a_member_outside_of_the_space_is_refused_by_name(folder):
    with pytest.raises(ConfigError, match=r"start_from=earlier: trial \d+ is no point .* differs in .*width"):
        search(folder, "study=other", "executor=in_process", "start_from=earlier", "+space.widths=[3]")


def test_a_study_that_is_not_there_is_refused(folder):
    with pytest.raises(ConfigError, match=r"unknown study.*earlir.*earlier"):
        search(folder, "study=other", "executor=in_process", "start_from=earlir")
