"""A search among whose candidates are some that crash, exhaust memory, hang or diverge; prints how trials ended."""

import json
import sys
from pathlib import Path

from nas.data import Task
from nas.device import Device
from nas.executor.spawned import SpawnedExecutor
from nas.objective import Objective
from nas.screen import Screen
from nas.search.driver import Driver
from nas.search.samplers import make_sampler
from nas.search.status import SearchLimits
from nas.store import StudyStore
from nas.testing.jobs import misbehave
from nas.testing.synthetic import MacsLatency, synthetic_job, synthetic_key
from search_spaces.toy import Toy

AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("size_kib", "minimize", "KiB", None, 20.0))
DEEDS = {
    (1, 3): {"do": "segfault"},
    (1, 5): {"do": "allocate", "mib": 4096},
    (2, 3): {"do": "hang"},
    (2, 5): {"do": "nan"},
}


def screen():
    space = Toy(Task("image_classification", 1, 10), (8,), widths=(4, 8), strides=(1, 2), depths=(1, 2, 3))
    return Screen(space, Device("fake", "x86_64", 1), MacsLatency(), {}, AXES, margin=1.0)


def make_job(config):
    job = synthetic_job(screen())

    def run(payload):
        choices = payload["architecture"]["choices"]
        deed = DEEDS.get((choices["depth"], choices["kernel"])) if choices["width"] == 4 else None
        if deed:
            misbehave(deed)
        return job(payload)

    return run


def main(folder):
    store = StudyStore(folder / "store.sqlite")
    executor = SpawnedExecutor(make_job, {}, memory_limit_mib=1024, timeout_s=2.0)
    limits = SearchLimits(1000)
    driver = Driver(
        "study", screen(), AXES, lambda seed: make_sampler("random", seed), synthetic_key, store, executor, limits
    )
    try:
        ended = driver.run()
    finally:
        executor.close()
    trials = [
        [record.state, dict(record.evaluation.architecture.choices), record.evaluation.reason]
        for record in store.trials()
        if record.state in ("complete", "failed")
    ]
    print(json.dumps({"ended": ended, "trials": trials}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
