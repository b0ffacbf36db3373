"""Times a proposal of the default sampler with 1,000 trials told, in seconds of the processor, one thread.

OMP_NUM_THREADS=1 .venv/bin/python experiments/20261124_replay/time_per_ask.py
"""

from __future__ import annotations

import time

import numpy as np
from large_spaces import SPACES, TASK, accuracy, latency_ms
from optuna.trial import TrialState

from nas.device import Device
from nas.objective import Objective
from nas.screen import Screen
from nas.search.ask_tell import AskTell
from nas.search.ehvi import EhviSampler
from nas.search.knowledge import problem_of
from nas.suggest import RandomSuggester
from nas.testing.synthetic import MacsLatency

TRIALS, ASKS = 1000, 25


def main() -> None:
    for name, kind in SPACES.items():
        space = kind(TASK, (16, 24, 32))
        axes = (Objective("accuracy", "maximize", "", None, 0.0), Objective("latency_ms", "minimize", "ms", None, 2.0))
        screen = Screen(space, Device("made_up", "x86_64", 1), MacsLatency(), {}, axes)
        sampler = EhviSampler(problem_of(screen, False), seed=0)
        ask_tell = AskTell(sampler, axes, [])
        rng = np.random.default_rng(0)
        taken = []
        for number in range(TRIALS + ASKS):
            if number < TRIALS:
                suggester = RandomSuggester(rng)
                space.suggest(suggester)
                trial = ask_tell.ask(suggester.answers)
            else:
                trial = ask_tell.ask()
            start = time.process_time()
            architecture = space.suggest(trial)
            taken.append(time.process_time() - start)
            graph = space.lower(architecture)
            values = (accuracy(name, architecture, graph), latency_ms(graph))
            ask_tell.tell(trial, TrialState.COMPLETE, values, {}, {})
        # The first proposal reads all thousand trials, as a resumed search does.
        asks = np.array(taken[TRIALS + 1 :]) * 1e3
        print(f"{name}: first {taken[TRIALS]:.1f} s, then median {np.median(asks):.0f} ms, largest {asks.max():.0f} ms")


if __name__ == "__main__":
    main()
