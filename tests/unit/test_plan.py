import json

import pytest

from nas.cli import plan as verb
from nas.config.compose import Request, resolve
from nas.config.plan import make_plan
from nas.errors import ConfigError

TOY = ("space=toy", "data=digits", "data.resolutions=[8]", "proxies=[]", "cost=predicted", "plan.samples=60")


def config(*overrides):
    return resolve(Request("plan", (*TOY, *overrides)))


def test_ranges_and_shares_are_those_of_the_architectures_drawn():
    plan = make_plan(config("plan.trial=false", "limits.macs=40000"))
    macs = plan.ranges["macs"]
    assert macs.least <= macs.median <= macs.most
    assert macs.most > 40000 > macs.least
    assert 0 < plan.satisfiable < 1
    assert plan.satisfiable == pytest.approx(1 - plan.refused["macs"])
    assert (plan.seconds, plan.fidelities) == (None, ())


def test_limits_that_leave_nothing_are_said_and_end_with_1(capsys):
    assert verb.run(config("limits.params=5")) == 1
    said = capsys.readouterr().out
    assert "limit on params: refuses 100.0%" in said
    assert "loosen a limit" in said


def test_the_time_is_estimated_from_a_candidate_at_each_fidelity(capsys):
    words = ("accuracy.epochs=3", "halving.rungs=[1]", "halving.keep=0.25", "budget=40", "output=json")
    assert verb.run(config(*words)) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [cost["epochs"] for cost in plan["fidelities"]] == [1, 3]
    assert [cost["candidates"] for cost in plan["fidelities"]] == [40, 10]
    expected = sum(cost["seconds"] * cost["candidates"] for cost in plan["fidelities"]) / plan["workers"]
    assert plan["estimated_seconds"] == pytest.approx(expected)
    assert expected > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("halving.rungs=[6]",), "must lie below accuracy.epochs=6"),
        (("halving.rungs=[2]", "accuracy=zero_cost", "objective=proxy_latency_size"), "needs a training that can stop"),
        (("drop_worst.snip=0.5",), "drop_worst names snip"),
        (("drop_worst.naswot=50", "proxies=[naswot]"), "expected a share above 0"),
    ],
)
def test_what_a_search_would_refuse_a_plan_refuses(words, said):
    made = config(*words, "plan.samples=10")
    with pytest.raises(ConfigError, match=said):
        make_plan(made)
