import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from nas.data import Task
from nas.device import Device
from nas.errors import ConfigError, DegenerateArchitectureError
from nas.objective import Objective
from nas.pareto import hypervolume, non_dominated
from nas.screen import Screen
from nas.search.ask_tell import AskTell
from nas.search.candidates import Encoder, Pool
from nas.search.ehvi import EhviSampler
from nas.search.improvement import cost_points, hypervolume_improvement
from nas.search.knowledge import problem_of
from nas.search.samplers import make_sampler
from nas.search.surrogate import CostModel, GaussianProcess, LossModel
from nas.testing.synthetic import MacsLatency, synthetic_evaluation
from search_spaces.convnet import ConvNet
from search_spaces.toy import Toy

AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("latency_ms", "minimize", "ms", None, 1.0))


def screen(space=None, objectives=AXES, **limits):
    made = space or Toy(Task("image_classification", 1, 10), (8,))
    return Screen(made, Device("fake", "x86_64", 1), MacsLatency(), limits, objectives, margin=1.0)


def tell(ask_tell, checks, trial, objectives=AXES):
    try:
        architecture = checks.space.suggest(trial)
    except DegenerateArchitectureError:
        ask_tell.tell(trial, TrialState.PRUNED, None, {"degenerate": 1.0}, {})
        return tell(ask_tell, checks, ask_tell.ask(), objectives)
    evaluation = synthetic_evaluation(checks, architecture)
    ask_tell.tell(trial, TrialState.COMPLETE, [evaluation.values[axis.metric] for axis in objectives], {}, {})
    return evaluation


def test_a_certain_improvement_is_the_volume_that_a_point_adds():
    rng = np.random.default_rng(0)
    for objectives in (2, 3):
        front = rng.random((6, objectives))
        front = front[non_dominated(front)]
        new = rng.random((40, objectives))
        points = cost_points(np.zeros(objectives - 1), np.ones(objectives - 1), 0)
        tiny = np.full(len(new), 1e-9)
        scores = hypervolume_improvement(new[:, 0], tiny, new[:, 1:], 0 * new[:, 1:], front, 1.0, points)
        corner = [1.0] * objectives
        added = [hypervolume(np.vstack([front, row]), corner) - hypervolume(front, corner) for row in new]
        best = np.argsort(added)[-5:]
        assert scores[best] == pytest.approx(np.array(added)[best], abs=0.01)


def test_an_uncertain_loss_improves_by_what_draws_of_it_improve():
    rng = np.random.default_rng(1)
    front = np.array([[0.2, 0.7], [0.5, 0.4], [0.8, 0.1]])
    draws = rng.normal(0.45, 0.2, 1500)
    grown = [hypervolume(np.vstack([front, [loss, 0.35]]), [1.0, 1.0]) for loss in draws]
    expected = np.mean(grown) - hypervolume(front, [1.0, 1.0])
    points = cost_points(np.zeros(1), np.ones(1), 0)
    one = np.array([0.45]), np.array([0.2]), np.array([[0.35]]), np.zeros((1, 1))
    assert hypervolume_improvement(*one, front, 1.0, points)[0] == pytest.approx(expected, rel=0.08)
    spread = hypervolume_improvement(*one[:3], np.full((1, 1), 1e-6), front, 1.0, points)[0]
    assert spread == pytest.approx(expected, rel=0.08)


def test_a_process_interpolates_and_says_where_it_does_not_know():
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 2, (40, 2))
    targets = np.sin(points[:, 0]) + 0.3 * points[:, 1]
    process = GaussianProcess()
    process.arrange([np.array([0]), np.array([1])])
    process.learn(points, targets, rng)
    process.fit(points, targets)
    mean, std = process.predict(np.array([[0.1, 0.2], [30.0, 30.0]]))
    assert mean[0] == pytest.approx(np.sin(0.1) + 0.06, abs=0.05)
    assert std[1] > 5 * std[0]


def test_the_slope_of_the_posterior_is_that_of_its_value():
    rng = np.random.default_rng(2)
    points, targets = rng.normal(size=(12, 3)), rng.normal(size=12)
    process = GaussianProcess()
    process.arrange([np.array([0, 1]), np.array([2])])
    distances = process._distances(points, points)
    theta = np.array([0.2, -2.0, 0.1, 0.5])
    _, slope = process._loss(theta, distances, targets)
    for index in range(4):
        step = np.zeros(4)
        step[index] = 1e-5
        up, down = (
            process._loss(theta + step, distances, targets)[0],
            process._loss(theta - step, distances, targets)[0],
        )
        assert slope[index] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-6)


def test_losses_and_costs_keep_their_order_and_scale():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3))
    groups = (np.array([0, 1]), np.array([2]))
    losses = 1 / (1 + np.exp(-rows[:, 0])) - 0.9
    model = LossModel()
    model.fit(rows[:40], losses[:40], groups, rng, True)
    assert np.corrcoef(model.predict(rows[40:])[0], losses[40:])[0, 1] > 0.9
    costs = np.exp(2 * rows[:, 2] + 0.1 * rows[:, 1])
    dear = CostModel()
    dear.fit(rows[:40], costs[:40], groups, rng, True)
    mean, std = dear.predict(rows[40:])
    assert np.median(np.abs(mean / costs[40:] - 1)) < 0.1
    assert (std > 0).all()


def test_columns_stand_for_what_architectures_differ_in():
    checks = screen(ConvNet(Task("image_classification", 3, 10), (16, 32)))
    pool = Pool(problem_of(checks, True), np.random.default_rng(0))
    pool.draw(30)
    encoder = Encoder()
    some, _ = encoder.encode(list(pool.members.values())[:5])
    rows, groups = encoder.encode(list(pool.members.values()))
    assert np.isfinite(rows).all()
    assert rows.shape[1] >= some.shape[1]
    assert sorted(np.concatenate(groups)) == list(range(rows.shape[1]))
    assert len(np.unique(rows.round(9), axis=0)) == len(pool.members)


def test_it_finds_the_front_of_the_toy_space_that_random_draws_have_not_found_yet():
    checks = screen()
    found = {}
    for name in ("random", "ehvi"):
        volumes = []
        for seed in range(3):
            ask_tell = AskTell(make_sampler(name, seed, None, problem_of(checks, True)), AXES, [])
            losses = []
            for _ in range(25):
                evaluation = tell(ask_tell, checks, ask_tell.ask())
                losses.append([axis.loss(evaluation.values) for axis in AXES])
            volumes.append(hypervolume(losses, [0.0, 1.0]))
        found[name] = np.mean(volumes)
    assert found["ehvi"] > found["random"]


def test_the_same_seed_proposes_the_same_and_never_the_same_twice():
    checks = screen(ConvNet(Task("image_classification", 3, 10), (16, 32)))
    runs = []
    for _ in range(2):
        ask_tell = AskTell(EhviSampler(problem_of(checks, True), seed=3, startup=4), AXES, [])
        runs.append([tell(ask_tell, checks, ask_tell.ask()).architecture.id for _ in range(9)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 9


def test_candidates_under_way_are_not_proposed_again():
    checks = screen()
    ask_tell = AskTell(EhviSampler(problem_of(checks, True), seed=0, startup=3), AXES, [])
    for _ in range(4):
        tell(ask_tell, checks, ask_tell.ask())
    batch = [checks.space.suggest(ask_tell.ask()).id for _ in range(6)]
    assert len(set(batch)) == 6


def test_limits_hold_for_every_proposal():
    drawn = [screen().costs(screen().space.sample(np.random.default_rng(seed)))["macs"].value for seed in range(40)]
    limit = float(np.median(drawn))
    checks = screen(macs=limit)
    ask_tell = AskTell(EhviSampler(problem_of(checks, True), seed=0, startup=3), AXES, [])
    for _ in range(12):
        assert tell(ask_tell, checks, ask_tell.ask()).values["macs"] <= limit


def test_a_cost_that_is_not_known_beforehand_is_learnt():
    axes = (AXES[0], Objective("size_kib", "minimize", "KiB", None, 20.0))
    checks = screen(objectives=axes)
    ask_tell = AskTell(EhviSampler(problem_of(checks, False), seed=0, startup=3), axes, [])
    seen = [tell(ask_tell, checks, ask_tell.ask(), axes).architecture.id for _ in range(12)]
    assert len(set(seen)) == 12


def test_failed_and_refused_trials_are_left_alone():
    checks = screen()
    sampler = EhviSampler(problem_of(checks, True), seed=0, startup=2)
    ask_tell = AskTell(sampler, AXES, [])
    gone = []
    for number in range(12):
        trial = ask_tell.ask()
        if number % 3:
            state = TrialState.FAIL if number % 2 else TrialState.PRUNED
            gone.append(checks.space.suggest(trial).id)
            ask_tell.tell(trial, state, None, {"latency_ms": 1.0}, {})
        else:
            assert tell(ask_tell, checks, trial).architecture.id not in gone


def test_an_exhausted_space_still_answers():
    task = Task("image_classification", 1, 10)
    checks = screen(Toy(task, (8,), widths=(4,), depths=(1,), kernels=(3,), strides=(1, 2), precisions=("int8",)))
    ask_tell = AskTell(EhviSampler(problem_of(checks, True), seed=0, startup=2), AXES, [])
    assert len({tell(ask_tell, checks, ask_tell.ask()).architecture.id for _ in range(5)}) == 2


def test_it_serves_a_plain_study_of_optuna():
    checks = screen()
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=EhviSampler(problem_of(checks, True), seed=0, startup=2)
    )

    def evaluate(trial):
        values = synthetic_evaluation(checks, checks.space.suggest(trial)).values
        return values["accuracy"], values["latency_ms"]

    study.optimize(evaluate, n_trials=6)
    assert len(study.best_trials) >= 1


def test_what_it_cannot_do_is_said():
    with pytest.raises(ConfigError, match="needs to know the space"):
        make_sampler("ehvi", 0)
    with pytest.raises(ConfigError, match="startup is 1"):
        make_sampler("ehvi", 0, {"startup": 1}, problem_of(screen(), True))
    with pytest.raises(ConfigError, match="Did you mean 'startup'"):
        make_sampler("ehvi", 0, {"startups": 3}, problem_of(screen(), True))
