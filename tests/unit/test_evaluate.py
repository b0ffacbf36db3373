import math
from dataclasses import replace

import numpy as np
import pytest

from nas.accuracy.training import ShortTraining
from nas.accuracy.zero_cost import ZeroCost
from nas.architecture import Precision
from nas.data.digits import Digits
from nas.device import Device
from nas.doubt import Guess, Rival
from nas.errors import CandidateError, ConfigError
from nas.evaluate import Evaluator, evaluation_job, fidelity_key
from nas.evaluation import Evaluation, State
from nas.measurement import Estimate, Measurement
from nas.objective import Objective
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.screen import Screen
from nas.testing.synthetic import MacsLatency
from search_spaces.toy import Toy

AXES = (Objective("accuracy", "maximize"), Objective("latency_ms", "minimize", "ms"))


class FakeMeter:
    """Answers with the latencies given, in turn, and remembers the precision of each file by its size."""

    def __init__(self, *latencies_ms):
        self.latencies_ms, self.sizes = list(latencies_ms), []

    def measure(self, model):
        self.sizes.append(model.stat().st_size)
        latency = self.latencies_ms.pop(0)
        reading = Measurement(latency, latency, 0.01, 200, 5, "ms", "fake", "fake", 0.0, 1.0, 0.01)
        return {"latency_ms": reading, "memory_kib": replace(reading, median=50.0, unit="KiB")}


@pytest.fixture(scope="module")
def dataset():
    return Digits((8,)).load()


@pytest.fixture
def make(dataset, tmp_path):
    def made(meter, objectives=AXES, accuracy=None, proxies=(), energy_model=None, **limits):
        space = Toy(dataset.task, (8,))
        screen = Screen(space, Device("fake", "x86_64", 1), MacsLatency(), limits, objectives)
        trainer = accuracy or ShortTraining(epochs=1, warmup_epochs=0.0)
        key = fidelity_key(dataset, trainer.key, 0, 16)
        return Evaluator(
            screen, dataset, trainer, OnnxRuntime(), meter, energy_model, key, tmp_path, proxies, calibration_images=16
        )

    return made


def architecture(evaluator, **wanted):
    rng = np.random.default_rng(0)
    while True:
        drawn = evaluator.screen.space.sample(rng)
        level = drawn.precision["stem"]
        if {**drawn.choices, "precision": level}.items() >= wanted.items():
            return drawn


def test_a_candidate_goes_through_all_phases_and_says_where_each_number_comes_from(make, tmp_path):
    evaluator = make(FakeMeter(0.5), proxies=("params", "macs", "synflow", "naswot"))
    chosen = architecture(evaluator, precision=Precision.INT8)
    result = evaluation_job(evaluator)({"architecture": chosen.to_dict()})
    evaluation = Evaluation.from_dict(result)
    assert evaluation.state is State.COMPLETE
    assert evaluation.architecture == chosen
    assert {"accuracy", "accuracy_fp32", "latency_ms", "memory_kib", "size_kib", "macs", "params"} <= set(
        evaluation.values
    )
    assert {f"proxy_{name}" for name in ("params", "macs", "synflow", "naswot")} <= set(evaluation.values)
    assert set(evaluation.values) == set(evaluation.provenance)
    kinds = {metric: origin["provenance"] for metric, origin in evaluation.provenance.items()}
    assert kinds["latency_ms"] == "measured"
    assert kinds["predicted_latency_ms"] == "modelled"
    assert kinds["macs"] == kinds["accuracy"] == "computed"
    assert {"proxies", "train", "export", "score", "measure"} == set(evaluation.seconds)
    folder = tmp_path / evaluation.folder
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model_fp32.onnx", "weights.safetensors"]
    assert evaluation.values["size_kib"] == (folder / "model.onnx").stat().st_size / 1024
    again = evaluator.score(folder / "model.onnx", evaluator.dataset.preprocessing(8, 8), "validation")
    assert again == evaluation.values["accuracy"]


def test_too_slow_before_training_is_refused_without_training(make):
    bounded = (AXES[0], replace(AXES[1], bound=1.0))
    evaluator = make(FakeMeter(1.5), bounded)
    evaluation = evaluator.evaluate(architecture(evaluator))
    assert evaluation.state is State.INFEASIBLE
    assert "untrained" in evaluation.reason
    assert evaluation.constraints == {"latency_ms": pytest.approx(0.5)}
    assert "train" not in evaluation.seconds
    assert evaluation.values["latency_ms"] == 1.5
    assert "accuracy" not in evaluation.values


def test_too_large_before_training_is_refused_without_timing(make):
    axes = (*AXES, Objective("size_kib", "minimize", "KiB", bound=0.9))
    meter = FakeMeter()
    evaluator = make(meter, axes)
    evaluation = evaluator.evaluate(architecture(evaluator, width=8, depth=2))
    assert evaluation.state is State.INFEASIBLE
    assert "size_kib" in evaluation.reason
    assert meter.sizes == []
    assert "train" not in evaluation.seconds


def test_a_bound_broken_by_the_trained_model_is_infeasible_with_all_values(make):
    bounded = (AXES[0], replace(AXES[1], bound=1.0))
    evaluator = make(FakeMeter(0.9, 1.1), bounded)
    evaluation = evaluator.evaluate(architecture(evaluator))
    assert evaluation.state is State.INFEASIBLE
    assert evaluation.constraints == {"latency_ms": pytest.approx(0.1)}
    assert "accuracy" in evaluation.values


def test_an_accuracy_below_its_bound_is_infeasible(make):
    evaluator = make(FakeMeter(0.5), (replace(AXES[0], bound=0.9999), AXES[1]))
    evaluation = evaluator.evaluate(architecture(evaluator))
    assert evaluation.state is State.INFEASIBLE
    assert evaluation.constraints["accuracy"] > 0


def test_without_a_meter_the_latency_is_a_labelled_estimate(make):
    evaluator = make(None)
    chosen = architecture(evaluator)
    evaluation = evaluator.evaluate(chosen)
    assert evaluation.provenance["latency_ms"]["provenance"] == "modelled"
    assert evaluation.values["latency_ms"] == evaluator.screen.space.lower(chosen).macs / 1e6
    assert "memory_kib" not in evaluation.values


def test_a_zero_cost_search_has_a_proxy_score_and_no_accuracy(make):
    axes = (Objective("proxy_score", "maximize"), AXES[1])
    evaluator = make(FakeMeter(0.5), axes, ZeroCost("synflow"))
    evaluation = evaluator.evaluate(architecture(evaluator))
    assert evaluation.state is State.COMPLETE
    assert "accuracy" not in evaluation.values
    assert "train" not in evaluation.seconds
    assert evaluation.values["proxy_score"] == evaluation.values["proxy_synflow"]
    assert "not an accuracy" in evaluation.provenance["proxy_score"]["how"]


def test_an_objective_without_a_value_is_an_error_that_names_those_there_are(make):
    evaluator = make(None, (*AXES, Objective("energy_mj", "minimize", "mJ")))
    with pytest.raises(ConfigError, match=r"energy_mj has no source .* have accuracy"):
        evaluator.evaluate(architecture(evaluator))


def test_nan_is_a_failed_candidate(make):
    evaluator = make(FakeMeter(0.5))
    evaluator.score = lambda model, preprocessing, split: math.nan
    with pytest.raises(CandidateError, match="accuracy is NaN"):
        evaluator.evaluate(architecture(evaluator))


def test_the_screen_names_every_limit_that_is_exceeded_and_forgives_an_estimate_its_margin(make):
    evaluator = make(None, AXES, macs=10.0, size_kib=1e6, latency_ms=1e-9)
    costs = evaluator.screen.costs(architecture(evaluator))
    assert set(evaluator.screen.violations(costs)) == {"macs", "latency_ms"}
    near = replace(evaluator.screen, limits={"latency_ms": costs["predicted_latency_ms"].value / 1.9})
    assert near.violations(costs) == {}


def test_the_tighter_of_limit_and_bound_holds(make):
    evaluator = make(None, (AXES[0], replace(AXES[1], bound=2.0)), latency_ms=3.0)
    assert evaluator.screen.bounds == {"latency_ms": 2.0}


def test_the_fidelity_key_tells_recipes_seeds_and_data_apart(dataset):
    keys = {
        fidelity_key(dataset, ShortTraining(epochs=1, warmup_epochs=0.0).key, 0, 16),
        fidelity_key(dataset, ShortTraining(epochs=2, warmup_epochs=0.0).key, 0, 16),
        fidelity_key(dataset, ShortTraining(epochs=1, warmup_epochs=0.0).key, 1, 16),
        fidelity_key(dataset, ShortTraining(epochs=1, warmup_epochs=0.0).key, 0, 32),
        fidelity_key(Digits((8,), seed=1).load(), ShortTraining(epochs=1, warmup_epochs=0.0).key, 0, 16),
    }
    assert len(keys) == 5


def test_a_candidate_that_climbs_goes_on_from_its_checkpoint_to_the_same_model(make, tmp_path):
    recipe = ShortTraining(epochs=3, warmup_epochs=0.5)
    straight = make(FakeMeter(0.5), accuracy=recipe)
    chosen = architecture(straight, precision=Precision.INT8)
    whole = straight.evaluate(chosen)
    climbing = replace(make(FakeMeter(0.5, 0.6), accuracy=recipe, proxies=("macs",)), rungs=(1, 2))
    file = tmp_path / "models" / chosen.id / "checkpoint.safetensors"
    known = None
    for rung in (0, 1, 2):
        known = climbing.evaluate(chosen, rung, known)
        assert known.values["epochs"] == rung + 1
        assert file.is_file() == (rung < 2)
        assert known.key.fidelity.endswith(("@1", "@2", whole.key.fidelity)[rung])
    assert known.key == whole.key
    assert known.values["accuracy_fp32"] == whole.values["accuracy_fp32"]
    assert known.values["accuracy"] == whole.values["accuracy"]
    assert known.values["latency_ms"] == 0.6, "timed at the first rung and as it ships"
    assert "proxy_macs" in known.values


def test_what_scores_among_the_worst_is_not_trained(make):
    evaluator = make(FakeMeter(), proxies=("params",))
    evaluation = evaluator.evaluate(architecture(evaluator), least={"proxy_params": 1e9})
    assert evaluation.state is State.INFEASIBLE
    assert "among the worst so far" in evaluation.reason
    assert "train" not in evaluation.seconds
    assert evaluation.constraints["proxy_params"] > 0


def guess(mean, std, *rivals, kind="predicted"):
    rivals = [Rival(i, {"accuracy": score, "latency_ms": ms}, ms) for i, (score, ms) in enumerate(rivals)]
    return {"": Guess(Estimate(mean, std, "ms", "online", "fake", kind), tuple(rivals))}


def test_a_latency_that_cannot_matter_stays_an_estimate_and_one_that_can_is_measured(make):
    meter = FakeMeter(7.0)
    evaluator = make(meter)
    one = architecture(evaluator)
    unread = evaluator.evaluate(one, guesses=guess(5.0, 0.1, (1.0, 3.0)))
    assert unread.values["latency_ms"] == unread.values["predicted_latency_ms"] == 5.0
    assert unread.provenance["latency_ms"]["provenance"] == "predicted"
    assert meter.sizes == []
    read = evaluator.evaluate(one, guesses=guess(5.0, 0.1, (1.0, 5.05)))
    assert (read.values["latency_ms"], read.values["predicted_latency_ms"]) == (7.0, 5.0)
    assert read.provenance["latency_ms"]["provenance"] == "measured"
    assert read.values["memory_kib"] == 50.0


def test_a_bound_is_held_by_the_interval_and_by_one_measurement_where_it_leaves_a_doubt(make):
    bounded = (AXES[0], replace(AXES[1], bound=6.0))
    evaluator = make(FakeMeter(), bounded)
    one = architecture(evaluator)
    assert evaluator.evaluate(one, guesses=guess(3.0, 0.1)).state is State.COMPLETE
    beyond = evaluator.evaluate(one, guesses=guess(9.0, 0.1))
    assert beyond.state is State.INFEASIBLE
    assert "as predicted, with its whole interval, latency_ms 9 is above the limit of 6" in beyond.reason
    assert beyond.provenance["latency_ms"]["provenance"] == "predicted"
    assert "train" not in beyond.seconds
    assert beyond.seconds
    meter = FakeMeter(5.5)
    doubtful = make(meter, bounded).evaluate(one, guesses=guess(6.1, 0.5))
    assert (doubtful.state, doubtful.values["latency_ms"], meter.latencies_ms) == (State.COMPLETE, 5.5, [])
    slow = make(FakeMeter(8.0), bounded).evaluate(one, guesses=guess(6.1, 0.5))
    assert (slow.state, slow.values["latency_ms"]) == (State.INFEASIBLE, 8.0)
    assert slow.provenance["latency_ms"]["provenance"] == "measured"
    assert "train" not in slow.seconds


def test_below_the_top_the_estimate_does_and_the_job_understands_a_guess(make):
    meter = FakeMeter(7.0)
    evaluator = replace(make(meter, accuracy=ShortTraining(epochs=2, warmup_epochs=0.0)), rungs=(1,))
    one = architecture(evaluator)
    guesses = {name: known.to_dict() for name, known in guess(5.0, 1.0, kind="modelled").items()}
    payload = {"architecture": one.to_dict(), "guesses": guesses}
    first = evaluation_job(evaluator)({**payload, "rung": 0})
    assert first["provenance"]["latency_ms"]["provenance"] == "modelled"
    top = evaluation_job(evaluator)({**payload, "rung": 1, "known": first})
    assert top["values"]["latency_ms"] == 7.0
