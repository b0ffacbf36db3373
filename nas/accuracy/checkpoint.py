"""A training that stopped between two epochs, on disk as safetensors: tensors and JSON, no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nas.errors import ModelFileError

FORMAT = "1"
_WEIGHTS, _BEST, _OPTIMIZER, _RANDOM = "weights/", "best/", "optimizer/", "random"


@dataclass(frozen=True)
class Checkpoint:
    """All that the next epoch depends on.

    Args:
        weights: state dict of the module after the last epoch.
        best: state dict of the epoch that was kept so far; empty where that is the last one.
        optimizer: parameter's position to the tensors of its optimizer state.
        random: torch's random state, shape (bytes,).
        facts: JSON-ready: history, best epoch and accuracy, state of the order's generator, recipe key, seconds.
    """

    weights: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimizer: Mapping[int, Mapping[str, Tensor]]
    random: Tensor
    facts: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write the file; it appears whole or not at all."""
        tensors = {_WEIGHTS + name: tensor for name, tensor in self.weights.items()}
        tensors |= {_BEST + name: tensor for name, tensor in self.best.items()}
        for position, state in self.optimizer.items():
            tensors |= {f"{_OPTIMIZER}{position}/{name}": tensor for name, tensor in state.items()}
        tensors[_RANDOM] = self.random
        flat = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
        save_file(flat, draft, {"format": FORMAT, "facts": json.dumps(self.facts)})
        os.replace(draft, path)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read what :meth:`save` wrote.

        Raises:
            ModelFileError: missing, damaged, or of another format.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable itself
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{path} cannot be read as a checkpoint: {error}") from error
        if about.get("format") != FORMAT or _RANDOM not in tensors:
            raise ModelFileError(f"{path} has checkpoint format {about.get('format')}; this version reads {FORMAT}")
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(_OPTIMIZER, tensors).items():
            position, _, key = name.partition("/")
            optimizer.setdefault(int(position), {})[key] = tensor
        return cls(
            weights=_below(_WEIGHTS, tensors),
            best=_below(_BEST, tensors),
            optimizer=optimizer,
            random=tensors[_RANDOM],
            facts=json.loads(about["facts"]),
        )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def restore_optimizer(optimizer: torch.optim.Optimizer, kept: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Put the kept state of each parameter, by position, back into a fresh optimizer over the same parameters."""
    state = optimizer.state_dict()
    state["state"] = {position: dict(tensors) for position, tensors in kept.items()}
    optimizer.load_state_dict(state)


def restore_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights into a module of the same architecture.

    Raises:
        ModelFileError: they are of another one.
    """
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ModelFileError(f"{path} holds weights of another architecture: {error}") from error
