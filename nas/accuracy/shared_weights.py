"""Tensors that every network of a space is cut out of: a network runs on them, or is taken out as a module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from nas.architecture import Architecture
from nas.errors import ConfigError, ModelFileError
from nas.protocols import SearchSpace, WeightSharing


class SharingSpace(SearchSpace, WeightSharing, Protocol):
    """A space that shares weights."""


class SharedWeights:
    """One tensor per weight, as large as the largest network needs it.

    Batch norms keep no running statistics here, since each network has its own; :func:`recalibrate` gives them.

    Args:
        space: whose networks are cut out.
        tensors: by name, those of ``space.shared_weights()``; trained in place.
    """

    def __init__(self, space: SharingSpace, tensors: Mapping[str, Tensor]) -> None:
        self._space = space
        self.tensors = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}

    @classmethod
    def fresh(cls, space: SharingSpace, seed: int) -> SharedWeights:
        """Return untrained weights; torch's global random state is as before afterwards."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(space, space.shared_weights())

    def logits(self, architecture: Architecture, inputs: Tensor) -> Tensor:
        """Return what the network says of a batch, shape (batch, classes), as in training; gradients reach the tensors.

        Args:
            architecture: of the space.
            inputs: shape (batch, channels, height, width); batch norms use their statistics.
        """
        module = unfilled(self._space, architecture).train()
        buffers = {name: torch.zeros(found.shape, dtype=found.dtype) for name, found in module.named_buffers()}
        logits: Tensor = functional_call(module, {**self._cut(architecture, module), **buffers}, (inputs,))
        return logits

    def extract(self, architecture: Architecture, module: nn.Module) -> None:
        """Copy a network's weights into its own module; running statistics stay as they are.

        Raises:
            ConfigError: the shared weights lack one, since they are of another space.
        """
        with torch.no_grad():
            parts = self._cut(architecture, module)
            for name, parameter in module.named_parameters():
                parameter.copy_(parts[name])

    def load(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take the values of tensors of the same names and sizes.

        Raises:
            ModelFileError: they are those of another space.
        """
        sizes, given = _sizes(self.tensors), _sizes(tensors)
        wrong = sorted(name for name in sizes.keys() | given.keys() if sizes.get(name) != given.get(name))
        if wrong:
            raise ModelFileError(
                f"{origin} was trained for another space or other classes: {len(wrong)} of {len(sizes)} tensors "
                f"differ, {wrong[0]} among them. Search the space that it is for, or name another accuracy.file"
            )
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(tensors[name])

    def _cut(self, architecture: Architecture, module: nn.Module) -> dict[str, Tensor]:
        prefixes, places = self._space.shared_blocks(architecture), self._space.shared_places(architecture)
        parts = {}
        for name, parameter in module.named_parameters():
            block, _, path = name.partition(".")
            shared = f"{prefixes[block]}.{path}"
            whole = self.tensors.get(shared)
            if whole is None or any(size > have for size, have in zip(parameter.shape, whole.shape, strict=True)):
                raise ConfigError(
                    f"the supernet has no {shared} of shape {tuple(parameter.shape)}; expected a supernet of this space"
                )
            parts[name] = part_of(whole, parameter.shape, places.get(name))
        return parts


class _NoFilling(TorchFunctionMode):
    """Leaves out what gives weights their first values, and passes everything else on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if getattr(func, "__name__", "") in _FILLING:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


# Of torch.nn.init, which a mode sees whole, and what those of it are made of that it does not.
_FILLING = {name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")}
_FILLING |= {"erfinv_", "fill_", "clamp_", "add_", "mul_", "zero_"}


def unfilled(space: SearchSpace, architecture: Architecture) -> nn.Module:
    """Return a network on torch's meta device, where nothing is allocated; initialising would take most of a step."""
    with torch.device("meta"), _NoFilling():
        return space.build(architecture)


def part_of(whole: Tensor, shape: Iterable[int], places: Mapping[int, Sequence[int]] | None = None) -> Tensor:
    """Return the first entries of the first two axes and the middle of all others, a view where no places are given.

    Args:
        whole: such as (outputs, inputs, side, side) of a convolution.
        shape: sizes wanted, none larger.
        places: axis to the entries wanted in the place of the first.
    """
    index = []
    for axis, (size, have) in enumerate(zip(shape, whole.shape, strict=True)):
        start = (have - size) // 2 if axis >= 2 else 0
        chosen = axis in (places or {})
        index.append(slice(None) if chosen else slice(start, start + size))
    part = whole[tuple(index)]
    for axis, entries in (places or {}).items():
        part = part.index_select(axis, torch.tensor(entries))
    return part


def recalibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of batch norms to their mean over the batches (Yu and Huang 2019, section 3.1)."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        module.eval()
        return
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    module.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for batch in batches:
            module(batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    module.eval()


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
