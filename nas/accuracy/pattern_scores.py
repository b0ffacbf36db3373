"""Zero-cost scores from a forward pass: how features tell pictures, units and channels apart (NASWOT, SWAP, MeCo)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas.accuracy.block_features import as_rows
from nas.accuracy.scratch import scratch
from nas.errors import CandidateError, ConfigError

# Rectifier-like functions: each bends around 0, so that the sign of its input says on which side a unit works. Gates
# (sigmoid, softmax) are none.
_RECTIFIERS = frozenset(
    [
        *("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "elu", "elu_", "celu", "selu"),
        *("gelu", "silu", "hardswish", "mish", "softplus"),
        *("hardtanh", "hardtanh_"),  # how nn.ReLU6 runs
    ]
)
# A flag for each of so many signs in a row takes a mebibyte, and a sum of as many powers of 2 is exact in fp32.
_MOST_PICTURES = 20


class Naswot:
    """Log-determinant of the kernel of activation patterns: what tells pictures apart untrained does so trained.

    Mellor et al. 2021: K[i, j] counts the units on whose same side pictures i and j fall; the score is ln |det K|. The
    side is the sign of a rectifier's input (ReLU, and likewise GELU, SiLU, Hardswish and kin, as module or function).
    One unit that only a picture itself shares is added, so that K stays invertible where two pictures have the same
    pattern. Batch norms use the batch's statistics, as in training; dropout is off.

    Args:
        pictures: at most so many of the batch are used.
    """

    name = "naswot"

    def __init__(self, pictures: int = 64) -> None:
        if pictures < 2:
            raise ConfigError(f"pictures={pictures}; the kernel needs at least 2")
        self._pictures = pictures

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return ln |det K| over the first pictures; labels are not read.

        Raises:
            CandidateError: ``degenerate`` for a network without a rectifier, ``nan`` if its activations are not finite.
        """
        batch = images[: self._pictures]
        kernel, units = np.eye(len(batch)), 0

        def add(signs: Tensor) -> None:
            nonlocal kernel, units
            # With codes of +1 and -1, agreements = (units + codes codes^T) / 2.
            codes = signs.float() * 2.0 - 1.0
            kernel = kernel + (codes.shape[1] + (codes @ codes.T).double().numpy()) / 2.0
            units += codes.shape[1]

        _watch(module, batch, add)
        if units == 0:
            raise CandidateError("degenerate", "NASWOT reads activation patterns and the network has no activation")
        return float(np.linalg.slogdet(kernel)[1])


class Swap:
    """How many units differ from all others in which pictures they are on for (Peng et al. 2024, definition 3.3).

    The pattern of a unit is the sign of a rectifier's input for each picture; the score is the number of different
    patterns in the whole network. Beyond some tens of pictures hardly any two units agree, and it counts units.

    Args:
        pictures: at most so many of the batch are used, 2 to 20.
    """

    name = "swap"

    def __init__(self, pictures: int = 16) -> None:
        if not 2 <= pictures <= _MOST_PICTURES:
            raise ConfigError(f"pictures={pictures}; expected 2 to {_MOST_PICTURES}")
        self._pictures = pictures

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the number of patterns over the first pictures; labels are not read.

        Raises:
            CandidateError: as for :class:`Naswot`.
        """
        batch = images[: self._pictures]
        found = torch.zeros(2 ** len(batch), dtype=torch.bool)
        digits = 2.0 ** torch.arange(len(batch))

        def add(signs: Tensor) -> None:
            found[(digits @ signs.float()).long()] = True

        _watch(module, batch, add)
        patterns = int(found.sum())
        if not patterns:
            raise CandidateError("degenerate", "SWAP reads activation patterns and the network has no activation")
        return float(patterns)


class Meco:
    """Least eigenvalue of the correlation between channels, summed over the layers (Jiang et al. 2023, equation 8).

    Channels that say different things of one picture have a correlation matrix near the identity, whose eigenvalues
    are 1; two that say the same make it singular. The picture is Gaussian noise, so no data is read.
    """

    name = "meco"

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the sum over all layers that write features; of the pictures only the shape is used.

        Raises:
            CandidateError: ``degenerate`` where no layer writes features or the input is tokens, ``nan`` if features
                are not finite.
        """
        if not images.is_floating_point():
            raise CandidateError("degenerate", "meco reads noise in the place of a picture, and tokens have none")
        least: list[float] = []

        def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and output.ndim >= 2:
                rows = as_rows(output.detach())
                if min(rows.shape) > 1:
                    least.append(_least_eigenvalue(rows))

        noise = torch.randn((1, *images.shape[1:]), generator=torch.Generator().manual_seed(0))
        with scratch(module) as twin, torch.no_grad():
            _prepare(twin)
            for layer in twin.modules():
                if not any(True for _ in layer.children()):
                    layer.register_forward_hook(keep)
            twin(noise)
        if not least:
            raise CandidateError("degenerate", "meco: no layer writes features of more than one channel")
        return math.fsum(least)


def _least_eigenvalue(rows: Tensor) -> float:
    """Return that of the columns' correlations; a constant column correlates with nothing, itself included."""
    if not torch.isfinite(rows).all():
        raise CandidateError("nan", "features of the untrained network are not finite")
    centred = (rows - rows.mean(dim=0)).double()
    scale = centred.norm(dim=0)
    normed = torch.where(scale > 1e-12, centred / scale.clamp(min=1e-12), 0.0)
    return max(0.0, float(torch.linalg.eigvalsh(normed.T @ normed)[0]))


def _watch(module: nn.Module, batch: Tensor, add: Callable[[Tensor], None]) -> None:
    """Run a copy on the batch and give the signs at every rectifier, shape (pictures, units), as they come."""
    with scratch(module) as twin, torch.no_grad():
        _prepare(twin)
        with _Signs(len(batch), add):
            twin(batch)


def _prepare(twin: nn.Module) -> None:
    """Keep batch norms on the batch's statistics but make nothing random."""
    twin.train()
    for layer in twin.modules():
        if "dropout" in type(layer).__name__.lower():
            layer.eval()


class _Signs(TorchFunctionMode):
    """Gives on which side of 0 every rectifier's input is."""

    def __init__(self, pictures: int, add: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._pictures, self._add = pictures, add

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in _RECTIFIERS and args and isinstance(args[0], Tensor):
            self._look(args[0])
        return func(*args, **(kwargs or {}))

    def _look(self, inputs: Tensor) -> None:
        # Transformers may fold the tokens into the leading axis: (batch * tokens, features), pictures outermost.
        if inputs.ndim < 2 or len(inputs) % self._pictures:
            return
        if not torch.isfinite(inputs).all():
            raise CandidateError("nan", "activations of the untrained network are not finite")
        self._add(inputs.reshape(self._pictures, -1) > 0)
