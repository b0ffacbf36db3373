"""Zero-cost scores from gradients: connection sensitivity, gradient norm, ZiCo, Jacobian covariance, and DSS."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.accuracy.scratch import scratch
from nas.errors import CandidateError, ConfigError


class Snip:
    """Connection sensitivity: how much the loss would change if single weights were taken away.

    Lee et al. 2019 (equation 4), summed over the network as in Abdelfattah et al. 2021: the sum of |dL/dw * w| over
    weights of two or more dimensions, for the cross-entropy of one batch. Batch norms use the batch's statistics.
    """

    name = "snip"

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the sum over all weights.

        Raises:
            CandidateError: ``nan`` if the loss or a gradient is not finite, ``degenerate`` if nothing depends on the
                weights.
        """
        with scratch(module) as copy:
            _backward(copy, images, labels)
            total = sum(float((_gradient(weight) * weight.detach()).abs().sum()) for weight in _weights(copy))
        return _checked(self.name, total)


class GradientNorm:
    """Euclidean norm of the loss's gradient, summed over the weights (Abdelfattah et al. 2021, section 3)."""

    name = "grad_norm"

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the sum of the norms, one per weight tensor.

        Raises:
            CandidateError: as for :class:`Snip`.
        """
        with scratch(module) as copy:
            _backward(copy, images, labels)
            total = sum(float(_gradient(weight).norm()) for weight in _weights(copy))
        return _checked(self.name, total)


class ZiCo:
    """How steady the gradients are from batch to batch (Li et al. 2023, equation 16).

    The sum over layers of ln(sum over its weights of E|g| / sqrt(Var|g|)), where g are the gradients of the
    cross-entropy on parts of the batch. Weights whose gradient does not vary at all are left out.

    Args:
        pictures: at most so many of the batch are used.
        parts: into which they are cut.
    """

    name = "zico"

    def __init__(self, pictures: int = 16, parts: int = 2) -> None:
        if not 2 <= parts <= pictures:
            raise ConfigError(f"parts={parts} of {pictures} pictures; a variance needs at least 2 of one or more each")
        self._pictures, self._parts = pictures, parts

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the sum over the layers.

        Raises:
            CandidateError: ``nan`` if the loss or a gradient is not finite, ``degenerate`` if nothing depends on the
                weights, or for fewer pictures than parts.
        """
        if len(images) < self._parts:
            raise CandidateError("degenerate", f"zico cuts the batch into {self._parts}, and it has {len(images)}")
        images, labels = images[: self._pictures], labels[: self._pictures]
        seen: dict[str, list[Tensor]] = {}
        with scratch(module) as copy:
            for some, answers in zip(images.chunk(self._parts), labels.chunk(self._parts), strict=True):
                copy.zero_grad(set_to_none=True)
                _backward(copy, some, answers)
                for name, weight in copy.named_parameters():
                    if weight.ndim >= 2 and weight.grad is not None:
                        seen.setdefault(name, []).append(weight.grad.abs())
        total, layers = 0.0, 0
        for gradients in seen.values():
            stacked = torch.stack(gradients)
            spread = stacked.std(dim=0, correction=0)
            steady = (stacked.mean(dim=0)[spread > 0] / spread[spread > 0]).double().sum()
            if steady > 0:
                total, layers = total + float(steady.log()), layers + 1
        if not math.isfinite(total):
            raise CandidateError("nan", f"zico is {total}")
        if not layers:
            raise CandidateError("degenerate", "zico: no weight has a gradient that varies")
        return total


class JacobianCovariance:
    """How differently the untrained network reacts to different pictures.

    Mellor et al. 2020 (version 1, equation 2): J holds one row per picture, the gradient of the summed outputs by the
    input; from the eigenvalues v of the rows' correlation matrix the score is -sum(ln(v + k) + 1 / (v + k)), k = 1e-5.
    """

    name = "jacob_cov"

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the score; labels are not read.

        Raises:
            CandidateError: ``degenerate`` where an output does not depend on the input, or where the input has no
                gradient, such as tokens; ``nan`` for gradients that are not finite.
        """
        if not images.is_floating_point():
            raise CandidateError("degenerate", "jacob_cov needs the gradient by the input, and tokens have none")
        with scratch(module) as copy:
            copy.train()
            _still(copy)
            given = images.detach().clone().requires_grad_(True)
            copy(given).sum().backward()
            if given.grad is None:
                raise CandidateError("degenerate", "jacob_cov: no output depends on the input")
            rows = given.grad.reshape(len(images), -1).double().numpy()
        if not np.isfinite(rows).all():
            raise CandidateError("nan", "jacob_cov: gradients by the input are not finite")
        if (rows.std(axis=1) == 0).any():
            raise CandidateError("degenerate", "jacob_cov: a picture's gradient is constant")
        values = np.linalg.eigvalsh(np.corrcoef(rows)).clip(min=0.0)
        return float(-np.sum(np.log(values + 1e-5) + 1.0 / (values + 1e-5)))


class Dss:
    """Synaptic diversity of attention and saliency of the rest, for vision transformers (Zhou et al. 2022, DSS++).

    Equations 5 to 7 there: with all inputs one, summed over attention's weights the nuclear norm of dL/dW times that of
    W, plus summed over all other weights |dL/dW * W|. L is the sum of the outputs, so no data is read. A module
    whose class is named after attention holds attention's weights; a network without any has the saliency alone.
    """

    name = "dss"

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return ln of the sum; of the pictures only shape and type are used, labels are not read.

        Raises:
            CandidateError: ``nan`` or ``degenerate``, as for :class:`Snip`.
        """
        with scratch(module) as copy:
            copy.eval()
            copy(torch.ones_like(images[:1])).sum().backward()
            inside = {id(weight) for weight in _attention_weights(copy)}
            total = 0.0
            for weight in _weights(copy):
                gradient = _gradient(weight)
                if id(weight) in inside:
                    total += float(_nuclear(gradient) * _nuclear(weight.detach()))
                else:
                    total += float((gradient * weight.detach()).abs().sum())
        return math.log(_checked(self.name, total))


def _backward(module: nn.Module, images: Tensor, labels: Tensor) -> None:
    module.train()
    _still(module)
    # A language model says something of each token.
    loss = functional.cross_entropy(module(images).flatten(0, -2), labels.flatten())
    if not torch.isfinite(loss):
        raise CandidateError("nan", f"the loss of the untrained network is {float(loss)}")
    loss.backward()  # type: ignore[no-untyped-call]


def _still(module: nn.Module) -> None:
    """Keep batch norms on the batch's statistics but make nothing random."""
    for layer in module.modules():
        if "dropout" in type(layer).__name__.lower():
            layer.eval()


def _weights(module: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in module.parameters() if parameter.ndim >= 2 and parameter.grad is not None)


def _gradient(weight: nn.Parameter) -> Tensor:
    return weight.grad if weight.grad is not None else torch.zeros_like(weight)


def _attention_weights(module: nn.Module) -> Iterator[nn.Parameter]:
    for layer in module.modules():
        if "attention" in type(layer).__name__.lower():
            yield from (parameter for parameter in layer.parameters() if parameter.ndim == 2)


def _nuclear(matrix: Tensor) -> Tensor:
    values: Tensor = torch.linalg.svdvals(matrix.float())
    return values.sum()


def _checked(name: str, total: float) -> float:
    if not math.isfinite(total):
        raise CandidateError("nan", f"{name} is {total}")
    if total <= 0.0:
        raise CandidateError("degenerate", f"{name}: no weight has a gradient")
    return total
