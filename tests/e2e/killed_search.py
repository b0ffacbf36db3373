"""A search with spawned workers and made-up values that says on standard output which trials were acknowledged."""

import sys
import time
from pathlib import Path

from nas.data import Task
from nas.device import Device
from nas.executor.spawned import SpawnedExecutor
from nas.objective import Objective
from nas.screen import Screen
from nas.search.ask_tell import OptunaMirror
from nas.search.driver import Driver
from nas.search.samplers import make_sampler
from nas.search.status import SearchLimits
from nas.store import StudyStore
from nas.testing.synthetic import MacsLatency, synthetic_job, synthetic_key
from search_spaces.convnet import ConvNet

AXES = (Objective("accuracy", "maximize", "", None, 0.0), Objective("size_kib", "minimize", "KiB", None, 2000.0))


def screen():
    space = ConvNet(Task("image_classification", 3, 10), (16, 24, 32))
    return Screen(space, Device("fake", "x86_64", 1), MacsLatency(), {}, AXES, margin=1.0)


def make_job(config):
    job = synthetic_job(screen())

    def slow(payload):
        time.sleep(config["seconds"])
        return job(payload)

    return slow


def say(status):
    print(f"acknowledged {sum(status.counts.values())}", flush=True)


def main(folder):
    store = StudyStore(folder / "store.sqlite")
    mirror = OptunaMirror(f"sqlite:///{folder / 'optuna.sqlite3'}", "study", AXES)
    executor = SpawnedExecutor(make_job, {"seconds": 0.01}, workers=1, standby=0)
    limits = SearchLimits(100_000)
    driver = Driver(
        "study", screen(), AXES, lambda seed: make_sampler("random", seed), synthetic_key, store, executor, limits,
        mirror=mirror, observers=(say,),
    )  # fmt: skip
    driver.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
