"""A search with ``cost=auto`` and made-up values that is killed at one step after the other until it reaches its end.

Steps are what a kill can fall between: a reading that was taken, and each write to the store, before it, after it and
inside its transaction. Every run is a child that kills itself with signal 9: in the search at a step drawn for it; when
all candidates are there at the first step, the second and so on, since the front is settled in one go. What is left is
printed, a JSON object per run. Readings go to ``readings.jsonl`` as they are taken, whatever becomes of them.
"""

import json
import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from latency_models.online import OnlineLatency
from nas.architecture import Architecture
from nas.data import Task
from nas.device import Device, Peaks
from nas.doubt import Guess, why_measure
from nas.evaluation import Evaluation
from nas.executor.in_process import InProcessExecutor
from nas.measurement import Measurement
from nas.objective import Objective
from nas.screen import Screen
from nas.search.driver import Driver
from nas.search.foresight import Foresight, Outlook
from nas.search.front import complete
from nas.search.readings import agreement_of, measurements
from nas.search.samplers import make_sampler
from nas.search.settle import settle_front
from nas.search.status import SearchLimits
from nas.store import StudyStore, check_integrity
from nas.testing.synthetic import MacsLatency, synthetic_evaluation, synthetic_key
from search_spaces.convnet import ConvNet

AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("latency_ms", "minimize", "ms", None, 0.2))
DEVICE = Device("fake", "x86_64", 1, peaks=Peaks(50.0, 150.0, 10.0, 1.0, "made up"))
BUDGET = 18
MOST_STEPS = 12  # from one kill in the search to the next


def screen():
    return Screen(ConvNet(Task("image_classification", 1, 10), (8,)), DEVICE, MacsLatency(), {}, AXES, margin=1.0)


def foresight():
    return Foresight(OnlineLatency(MacsLatency()), screen(), 0.001)


class Steps:
    """Counts down to the kill; the file ``kills`` keeps where it came."""

    def __init__(self, left, folder):
        self.left, self.folder = left, folder

    def __call__(self, where):
        self.left -= 1
        if self.left == 0:
            with (self.folder / "kills").open("a") as kills:
                kills.write(f"{where}\n")
            os.kill(os.getpid(), signal.SIGKILL)


class WatchedStore(StudyStore):
    """A store with a step before each write and one inside its transaction, and of a trial one after it."""

    def __init__(self, path, step):
        self._step = lambda where: None
        super().__init__(path)
        self._step = step

    def _write(self, facts):
        self._step(f"before {', '.join(facts)}")
        super()._write(facts)
        self._step(f"after {', '.join(facts)}, uncommitted")

    def add_trial(self, *arguments, **named):
        self._step("before a trial")
        number = super().add_trial(*arguments, **named)
        self._step("after a trial")
        return number


class Clock:
    """Reads made-up latencies, true ones with a little noise, and writes each down before it hands it over."""

    def __init__(self, folder, step):
        self.screen, self.file, self.step = screen(), folder / "readings.jsonl", step
        self.rng = np.random.default_rng(os.getpid())
        self.known = {}

    def read(self, architectures, when):
        ids = [architecture.id for architecture in architectures]
        with self.file.open("a") as file:
            file.write(json.dumps({"when": when, "ids": ids}) + "\n")
        readings = [self._reading(architecture) for architecture in architectures]
        self.step(f"a reading of the {when}")
        return readings

    def _reading(self, architecture):
        graph = self.screen.space.lower(architecture)
        ms = (0.002 * len(graph.ops) + graph.macs / 4e7) * (1 + 0.001 * self.rng.standard_normal())
        return Measurement(ms, ms, 1e-5 * ms, 200, 5, "ms", "d", "r", 0.0, 1.0, 1e-5)

    def compare(self, models, rounds):
        return self.read([self.known[model.parent.name] for model in models], "settling")


def make_job(folder, clock):
    def job(payload):
        architecture, guess = Architecture.from_dict(payload["architecture"]), Guess.from_dict(payload["guesses"][""])
        made = synthetic_evaluation(clock.screen, architecture)
        latency = guess.estimate
        if why_measure(guess, made.values, AXES):
            (latency,) = clock.read([architecture], "search")
        home = folder / "models" / architecture.id
        home.mkdir(parents=True, exist_ok=True)
        (home / "model.onnx").touch()
        noted = {"latency_ms": latency, "predicted_latency_ms": guess.estimate}
        return replace(
            made,
            values={**made.values, **{name: number.value for name, number in noted.items()}},
            provenance={name: number.to_dict() for name, number in noted.items()},
            folder=str(home.relative_to(folder)),
        ).to_dict()

    return job


def search(folder, left):
    """Search and settle the front, as ``nas search`` does, to the end or to the kill."""
    step = Steps(left, folder)
    store, clock, model = WatchedStore(folder / "store.sqlite", step), Clock(folder, step), foresight()
    store.put("config", {"cost": {"mode": "auto"}})
    driver = Driver(
        "study", screen(), AXES, lambda seed: make_sampler("random", seed), synthetic_key, store,
        InProcessExecutor(make_job(folder, clock)), SearchLimits(BUDGET), outlook=Outlook({"": model}),
    )  # fmt: skip
    driver.run()
    clock.known = {evaluation.architecture.id: evaluation.architecture for _, evaluation in complete(store)}
    settle_front(store, folder, clock, AXES, model)
    store.put("finished", True)


def left_behind(folder, status):
    """Return what a run left: trials, which latencies stand, how often was read, and what the counts say of it."""
    store = StudyStore(folder / "store.sqlite")
    log = folder / "readings.jsonl"
    found = agreement_of(store)
    facts = {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "integrity": check_integrity(folder / "store.sqlite"),
        "finished": store.get("finished", False),
        "trials": [[record.number, record.state, record.evaluation.architecture.id] for record in store.trials()],
        "latencies": {
            evaluation.architecture.id: evaluation.provenance["latency_ms"] for _, evaluation in complete(store)
        },
        "settled": store.get("settled", {}),
        "log": [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else [],
        "agreement": found.to_dict() if found else None,
        "measurements": measurements(store),
    }
    store.close()
    return facts


def expected_predictions(folder):
    """Return per trial what was predicted of it, and what a model says that learned from all trials before it."""
    store, model, pairs = StudyStore(folder / "store.sqlite"), foresight(), []
    for record in store.trials():
        evaluation: Evaluation = record.evaluation
        if record.duplicate_of is None:
            expected = model.predict(evaluation.architecture).to_dict()
            pairs.append([evaluation.provenance["predicted_latency_ms"], expected])
            model.learn([evaluation])
    store.close()
    return pairs


def main(folder):
    rng = random.Random(3)
    searched = settled = 0
    finished = False
    while not finished:
        if searched == BUDGET:
            settled += 1
        left = settled or rng.randint(1, MOST_STEPS)
        child = os.fork()
        if child == 0:
            search(folder, left)
            os._exit(0)
        facts = left_behind(folder, os.waitpid(child, 0)[1])
        print(json.dumps(facts), flush=True)
        finished, searched = facts["signal"] == 0, len(facts["latencies"])
    print(json.dumps(expected_predictions(folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
