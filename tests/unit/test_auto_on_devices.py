"""``cost=auto`` on several devices: each with a model, a doubt and savings of its own."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from latency_models.online import OnlineLatency
from nas.architecture import Architecture
from nas.config.compose import Request, resolve
from nas.config.parts import Parts
from nas.config.settling import settle
from nas.data import Task
from nas.device import Device, Peaks
from nas.doubt import Guess, Rival
from nas.executor.in_process import InProcessExecutor
from nas.measure.costs import Costs
from nas.measure.target import Target
from nas.measurement import Estimate, Measurement
from nas.objective import Objective
from nas.progress import InfeasibleError, Progress
from nas.screen import Screen
from nas.search.driver import Driver
from nas.search.foresight import Foresight, Outlook, latency_of
from nas.search.front import complete, eligible, front_of, hypervolume_of, leading, study_objectives
from nas.search.readings import agreement_of, measurements
from nas.search.samplers import make_sampler
from nas.search.several import device_stores, exchanges_of, full_snapshot, winners_of
from nas.search.status import SearchLimits
from nas.store import StudyStore
from nas.targets import expanded, own_axes
from nas.testing.synthetic import MacsLatency, synthetic_evaluation, synthetic_key
from nas.tracking import content
from nas.tracking.report import description, write_files
from search_spaces.convnet import ConvNet

OWN = (Objective("accuracy", "maximize", "", None, 0.0), Objective("latency_ms", "minimize", "ms", None, 0.2))
AXES = expanded(OWN, ["board"])
KEYS = {"": "desk", "board": "board"}  # as metrics name the devices
SPACE = ConvNet(Task("image_classification", 1, 10), (8,))
DEVICES = {
    name: Device(name, "x86_64", 1, peaks=Peaks(50.0, 150.0, 10.0, 1.0, "made up"), fingerprint=None)
    for name in ("desk", "board")
}


def screen(name, axes=OWN):
    return Screen(SPACE, DEVICES[name], MacsLatency(), {}, axes, margin=1.0)


def true_ms(architecture, name):
    """The desk is slow where networks are deep, the board where they multiply much."""
    graph = SPACE.lower(architecture)
    return 0.004 * len(graph.ops) + graph.macs / 2e8 if name == "desk" else 0.0005 * len(graph.ops) + graph.macs / 2e7


def reading(ms):
    return Measurement(ms, ms, 0.0005 * ms, 200, 5, "ms", "d", "r", 0.0, ms, 0.0005 * ms)  # beside an anchor of 1 ms


class Meter:
    """Reads the true latency of the architecture whose folder a model lies in, and remembers which."""

    has_energy = False

    def __init__(self, name, known):
        self.name, self.known, self.searched, self.settled = name, known, [], []

    def measure(self, model):
        self.searched.append(model.parent.name)
        return {"latency_ms": reading(true_ms(self.known[model.parent.name], self.name))}

    def compare(self, models, rounds):
        self.settled += [model.parent.name for model in models]
        return [reading(true_ms(self.known[model.parent.name], self.name)) for model in models]


class Search:
    """A search on two devices, ``automatic`` ones predicted first, the others measured; run and settled."""

    def __init__(self, folder, automatic=("desk", "board"), budget=30):
        self.known, self.folder = {}, folder
        self.meters = {name: Meter(name, self.known) for name in DEVICES}
        self.foresights = {
            name: Foresight(OnlineLatency(MacsLatency()), screen(name), 0.001) if name in automatic else None
            for name in DEVICES
        }
        foreseen = {key: self.foresights[name] for key, name in KEYS.items() if name in automatic}
        first = replace(screen("desk", AXES), others={"board": screen("board")})
        self.costs = Costs(
            first,
            [Target(key, first if not key else screen(name), self.meters[name], None) for key, name in KEYS.items()],
        )
        self.store = StudyStore(folder / "store.sqlite")
        cost = {name: {"mode": "auto" if name in automatic else "measured"} for name in DEVICES}
        for name, value in {
            "config": {"cost": cost["desk"], "costs": {"board": cost["board"]}, "devices": {"desk": {}, "board": {}}},
            "study": "s",
            "objectives": [asdict(axis) for axis in AXES],
            "device": {"name": "desk"},
            "devices": {name: {"name": name} for name in DEVICES},
        }.items():
            self.store.put(name, value)
        self.guesses, self.budget = [], budget
        self.driver(foreseen).run()
        self.views = device_stores(self.store)

    def driver(self, foreseen):
        return Driver(
            "s", self.costs.screen, AXES, lambda seed: make_sampler("random", seed), synthetic_key, self.store,
            InProcessExecutor(self.evaluate), SearchLimits(self.budget), outlook=Outlook(foreseen, "desk"),
        )  # fmt: skip

    def evaluate(self, payload):
        architecture = Architecture.from_dict(payload["architecture"])
        guesses = {name: Guess.from_dict(guess) for name, guess in payload["guesses"].items()}
        self.guesses.append(guesses)
        self.known[architecture.id] = architecture
        made = synthetic_evaluation(self.costs.screen, architecture)
        home = self.folder / "models" / architecture.id
        home.mkdir(parents=True, exist_ok=True)
        (home / "model.onnx").touch()
        progress = Progress({"accuracy": made.values["accuracy"]})
        self.costs.take(home / "model.onnx", architecture, SPACE.lower(architecture), progress, guesses, True, True)
        folder = str(home.relative_to(self.folder))
        return replace(made, values=progress.values, provenance=progress.provenance, folder=folder).to_dict()

    def settle(self):
        parts = {
            name: SimpleNamespace(
                names=(), meter=self.meters[name], foresight=self.foresights[name], folder=self.folder,
            )
            for name in DEVICES
        }  # fmt: skip
        whole = SimpleNamespace(names=tuple(DEVICES), each=parts, config={"rule": "knee"})
        return settle(whole, self.store)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A search with both devices predicted first: before it was settled (views' provenances), and settled."""
    search = Search(tmp_path_factory.mktemp("both"))
    before = {name: dict(complete(view)) for name, view in search.views.items()}
    search.settle()
    return search, before


def test_a_candidate_is_measured_on_the_devices_where_that_could_change_something_and_on_no_other(both):
    search, before = both
    read = {name: set(meter.searched) for name, meter in search.meters.items()}
    assert read["desk"] - read["board"]
    assert read["board"] - read["desk"]
    for name, members in before.items():
        origins = {one.architecture.id: one.provenance["latency_ms"]["provenance"] for one in members.values()}
        assert {key for key, origin in origins.items() if origin == "measured"} == read[name]
        assert len(search.meters[name].searched) == len(read[name]) < len(members) == 30


def test_each_device_has_a_model_that_learned_from_its_own_readings_alone(both):
    search, before = both
    for key, name in KEYS.items():
        taught = Foresight(OnlineLatency(MacsLatency()), screen(name), 0.001)
        for guesses, evaluation in zip(search.guesses, before[name].values(), strict=True):
            assert guesses[key].estimate == taught.predict(evaluation.architecture)
            assert guesses[key].estimate.device == name
            taught.learn([evaluation])


def test_rivals_are_those_of_the_devices_own_front(both):
    search, before = both
    last = search.guesses[-1]
    for key, name in KEYS.items():
        taught = Foresight(OnlineLatency(MacsLatency()), screen(name), 0.001)
        earlier = list(before[name].items())[:-1]
        taught.learn(evaluation for _, evaluation in earlier)
        front = front_of(taught.renewed(earlier), OWN)
        assert {rival.trial for rival in last[key].rivals} == {number for number, _ in front}
        assert all(set(rival.values) == {"accuracy", "latency_ms"} for rival in last[key].rivals)


def test_when_it_has_ended_each_front_is_measured_and_each_winner_on_each_device(both):
    search, _ = both
    winners = winners_of(search.views, "knee")
    assert set(winners) == set(DEVICES)
    for view in search.views.values():
        front = leading(view, own_axes(study_objectives(view)))
        latencies = [latency_of(one) for _, one in front]
        assert all(isinstance(latency, Measurement) for latency in latencies)
        assert set(view.get("settled")) >= {str(number) for number, _ in front}
        seen = dict(complete(view))
        assert all(isinstance(latency_of(seen[winner]), Measurement) for winner in winners.values())
    fronts = {name: (leading(view, OWN), winners[name]) for name, view in search.views.items()}
    assert not any(exchange.estimated for exchange in exchanges_of(search.views, fronts))
    # Of each front over own axes, not of the one over all: else nearly everything would have been timed.
    joint = front_of(eligible(search.store, AXES), AXES)
    for name, meter in search.meters.items():
        assert {one.architecture.id for _, one in joint} - set(meter.settled) - set(meter.searched), name


def test_savings_are_counted_for_each_device_and_cost_no_hypervolume_worth_mentioning(both):
    search, _ = both
    for name, view in search.views.items():
        found, meter = agreement_of(view), search.meters[name]
        late = set(meter.settled) - set(meter.searched)
        assert (found.measured, found.later) == (len(meter.searched), len(late))
        assert found.saved == 30 - found.measured - found.later > 0
        assert measurements(view)["search"] == len(meter.searched)
        assert measurements(view)["settle"] == len(meter.settled)
        truth = [
            (number, replace(one, values={**one.values, "latency_ms": true_ms(one.architecture, name)}))
            for number, one in complete(view)
        ]
        reached = hypervolume_of(leading(view, OWN), OWN)
        assert reached == pytest.approx(hypervolume_of(front_of(truth, OWN), OWN), rel=0.01)


def test_a_search_that_goes_on_knows_what_was_read_on_each_device(both):
    search, _ = both
    settled = {name: view.get("settled") for name, view in search.views.items()}
    joint = dict(complete(search.store))
    for number, reading_of in settled["board"].items():
        assert joint[int(number)].values["latency_ms@board"] == reading_of["median"]
    for number, estimate in search.views["board"].get("estimates").items():
        if number not in settled["board"]:
            assert joint[int(number)].provenance["latency_ms@board"] == estimate
    fresh = {key: Foresight(OnlineLatency(MacsLatency()), screen(name), 0.001) for key, name in KEYS.items()}
    search.driver(fresh)
    some = complete(search.store)[0][1].architecture
    for key, name in KEYS.items():
        taught = Foresight(OnlineLatency(MacsLatency()), screen(name), 0.001)
        taught.learn(record.evaluation for record in search.views[name].trials())
        before = taught.predict(some)
        taught.learn(evaluation for _, evaluation in complete(search.views[name]))
        assert fresh[key].predict(some) == taught.predict(some) != before


def test_the_page_shows_a_picture_and_a_tau_for_each_device(both, tmp_path):
    search, _ = both
    snapshot = full_snapshot(search.store, search.folder)
    write_files(snapshot, tmp_path)
    names = {path.name for path in tmp_path.glob("predictions*")}
    assert names == {f"predictions_{name}.{ending}" for name in DEVICES for ending in ("png", "html")}
    assert "<title>s on board: predictions</title>" in (tmp_path / "predictions_board.html").read_text()
    last = {point.name: point.value for point in content.search_metrics(snapshot)}
    found = {name: agreement_of(view) for name, view in search.views.items()}
    assert last["latency_measurements_saved"] == found["desk"].saved
    assert last["latency_measurements_saved_board"] == found["board"].saved
    assert last["latency_kendall_tau_board"] == found["board"].kendall_tau
    text = description(snapshot, "run")
    for name in DEVICES:
        assert f"On {name}: {found[name].sentence}" in text
        assert f"predictions_{name}.png" in text


def test_one_device_may_be_measured_while_the_other_is_predicted_first(tmp_path):
    search = Search(tmp_path, automatic=("board",), budget=16)
    assert set(search.guesses[-1]) == {"board"}
    assert len(search.meters["desk"].searched) == 16 > len(search.meters["board"].searched)
    search.settle()
    assert agreement_of(search.views["desk"]) is None
    assert agreement_of(search.views["board"]).saved > 0
    for view in search.views.values():
        assert all(isinstance(latency_of(one), Measurement) for _, one in leading(view, OWN))
    names = {path.name for path in write(search, tmp_path / "page")}
    assert names == {"predictions_board.png", "predictions_board.html"}


def write(search, folder):
    folder.mkdir()
    write_files(full_snapshot(search.store, search.folder), folder)
    return folder.glob("predictions*")


def test_what_cannot_be_timed_on_one_device_is_on_no_front(tmp_path):
    search = Search(tmp_path, budget=8)
    number = leading(search.views["desk"], OWN)[0][0]
    search.views["board"].put("untimeable", {str(number): "it crashed"})
    for store in (search.store, *search.views.values()):
        assert number not in dict(eligible(store, study_objectives(store)))


def guess(mean, half, *rivals):
    rivals = [Rival(i, {"accuracy": score, "latency_ms": ms}, ms) for i, (score, ms) in enumerate(rivals)]
    return Guess(Estimate(mean, half / 1.645, "ms", "online", "fake"), tuple(rivals))


class Told:
    has_energy = False

    def __init__(self, ms):
        self.ms, self.asked = ms, 0

    def measure(self, model):
        self.asked += 1
        return {"latency_ms": reading(self.ms)}


def bounded(desk_ms, board_ms, bound):
    axes = (OWN[0], replace(OWN[1], bound=bound))
    first = replace(screen("desk", expanded(axes, ["board"])), others={"board": screen("board", axes)})
    meters = Told(desk_ms), Told(board_ms)
    return Costs(
        first, [Target("", first, meters[0], None), Target("board", screen("board", axes), meters[1], None)]
    ), meters


def test_a_bound_is_in_doubt_on_a_device_by_itself(tmp_path):
    costs, meters = bounded(5.0, 5.5, 6.0)
    progress = Progress()
    bounds = costs.screen.bounds
    read = costs.of_untrained(tmp_path, bounds, progress, {"": guess(3.0, 1.0), "board": guess(6.0, 1.0)})
    assert set(read) == {"latency_ms@board"}
    assert progress.is_measured("latency_ms@board")
    assert [meter.asked for meter in meters] == [0, 1]
    with pytest.raises(InfeasibleError, match="whole interval, latency_ms@board 9 is above") as refusal:
        costs.of_untrained(tmp_path, bounds, Progress(), {"": guess(6.0, 1.0), "board": guess(9.0, 1.0)})
    assert refusal.value.violations == {"latency_ms@board": 3.0}
    assert [meter.asked for meter in meters] == [0, 1]


def test_a_reading_beyond_the_bound_on_one_device_spares_the_others(tmp_path):
    architecture = SPACE.sample(np.random.default_rng(0))
    graph, doubt = SPACE.lower(architecture), {"": guess(6.0, 1.0), "board": guess(6.0, 1.0)}
    costs, meters = bounded(7.0, 5.5, 6.0)
    costs.take(tmp_path, architecture, graph, Progress({"accuracy": 0.5}), doubt, True, True)
    assert [meter.asked for meter in meters] == [1, 0]
    costs, meters = bounded(5.0, 5.5, 6.0)
    costs.take(tmp_path, architecture, graph, Progress({"accuracy": 0.5}), doubt, True, True)
    assert [meter.asked for meter in meters] == [1, 1]
    costs.take(tmp_path, architecture, graph, Progress({"accuracy": 0.5}), doubt, True, False)
    assert [meter.asked for meter in meters] == [1, 1]


def compose(*words):
    return resolve(Request("search", ("experiment=digits_toy", "tracking=none", *words)))


def test_each_device_asks_for_its_own_cost(tmp_path):
    nothing = ("devices.a.peaks=null", "devices.b.peaks=null")
    two = ("devices={a: local, b: local}", *nothing)
    known = tuple(replace(axis, reference=2.0) for axis in Parts(compose(*two), tmp_path).objectives)
    parts = Parts(compose(*two, "cost=auto"), tmp_path, known)
    outlook = parts.outlook
    assert (set(outlook.foresights), outlook.first) == ({"", "b"}, "a")
    for foresight in outlook.foresights.values():
        axes = foresight._screen.objectives
        assert {axis.metric: axis.reference for axis in axes}["latency_ms"] == 2.0
        assert not any("@" in axis.metric for axis in axes)
    far = Parts(compose("devices={a: local, b: rpi4}", "devices.a.peaks=null", "cost=auto"), tmp_path)
    assert set(far.outlook.foresights) == {""}
    assert far.others["b"].meter is None
    second = Parts(compose(*two, "costs={a: predicted, b: auto}"), tmp_path)
    assert set(second.outlook.foresights) == {"b"}
    assert Parts(compose(*two), tmp_path).outlook is None


def test_guesses_survive_json(both):
    search, _ = both
    for guesses in search.guesses:
        for one in guesses.values():
            assert Guess.from_dict(json.loads(json.dumps(one.to_dict()))) == one
