import pytest

from nas.errors import ConfigError
from nas.objective import Objective
from nas.search.rules import check_rule, pick

AXES = (Objective("accuracy", "maximize"), Objective("latency_ms", "minimize", "ms"))
FRONT = [
    {"accuracy": 0.95, "latency_ms": 8.0},
    {"accuracy": 0.945, "latency_ms": 2.0},
    {"accuracy": 0.93, "latency_ms": 1.0},
    {"accuracy": 0.60, "latency_ms": 0.9},
]


@pytest.mark.parametrize(
    ("rule", "index", "words"),
    [
        ("fastest_within_1", 1, "within 1 points"),
        ("fastest_within_2_points", 2, "1 ms"),
        ("fastest_within_0", 0, "95.00%"),
        ("best_under_2ms", 1, "best accuracy"),
        ("best_under_1.5_ms", 2, "under 1.5 ms"),
        ("knee", 2, "nearest to the ideal"),
    ],
)
def test_each_rule_picks_what_it_says_with_a_reason(rule, index, words):
    chosen, reason = pick(rule, FRONT, AXES)
    assert chosen == index
    assert words in reason


def test_a_misspelt_rule_gets_the_corrected_spelling():
    with pytest.raises(ConfigError, match=r"Did you mean 'fastest_within_1'"):
        check_rule("fastest_with_1")
    with pytest.raises(ConfigError, match=r"best_under_<milliseconds>ms"):
        check_rule("cheapest")


def test_an_impossible_rule_says_what_is_possible():
    with pytest.raises(ConfigError, match=r"fastest takes 0.9 ms"):
        pick("best_under_0.5ms", FRONT, AXES)
    with pytest.raises(ConfigError, match="front is empty"):
        pick("knee", [], AXES)
    with pytest.raises(ConfigError, match="needs latency_ms or token_ms"):
        pick("fastest_within_1", [{"accuracy": 0.5, "size_kib": 1.0}], AXES[:1])


def test_the_rules_read_perplexity_and_token_time_where_there_is_no_accuracy():
    front = [
        {"perplexity": 50.0, "token_ms": 0.9},
        {"perplexity": 52.0, "token_ms": 0.5},
        {"perplexity": 80.0, "token_ms": 0.1},
    ]
    axes = (Objective("perplexity", "minimize"), Objective("token_ms", "minimize", "ms"))
    chosen, reason = pick("fastest_within_5", front, axes)
    assert chosen == 1
    assert "within 5 % of the best perplexity 50" in reason
    assert pick("best_under_0.4ms", front, axes)[0] == 2
    assert pick("best_under_2ms", front, axes)[0] == 0


def test_a_front_of_one_has_a_knee():
    assert pick("knee", FRONT[:1], AXES)[0] == 0
