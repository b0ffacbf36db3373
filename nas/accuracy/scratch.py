"""A copy of a network to score, so that the network itself stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def scratch(module: nn.Module) -> Iterator[nn.Module]:
    """Give a copy of the module without gradients, torch's random state forked and seeded the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        twin = copy.deepcopy(module)
        twin.zero_grad(set_to_none=True)
        yield twin
