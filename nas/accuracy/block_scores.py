"""AZ-NAS: four views of an untrained network, which rank it together better than each alone (Lee and Ham 2024).

Their equations, here for any network that is a chain of blocks: expressivity is the entropy of the spectrum of a
block's features, progressivity how little it falls from block to block, trainability how near to 1 the largest singular
value of a block's Jacobian is, complexity the multiply-accumulates. Gaussian noise stands for pictures, so no data is
read.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.accuracy.block_features import as_rows, caught
from nas.accuracy.scratch import scratch
from nas.errors import CandidateError

_TINY = 1e-8


class Expressivity:
    """Sum over the blocks of the entropy of their features' normalised spectrum (equations 1 to 3 there).

    Args:
        pictures: noise inputs at most.
    """

    name = "expressivity"

    def __init__(self, pictures: int = 16) -> None:
        self._pictures = pictures

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the sum; of the pictures only the shape is used, labels are not read.

        Raises:
            CandidateError: ``degenerate`` for a network without blocks, ``nan`` if its features are not finite.
        """
        return float(np.sum(block_entropies(module, images[: self._pictures])))


class Progressivity:
    """Smallest growth of that entropy from a block to the next (equation 4 there).

    Args:
        pictures: noise inputs at most.
    """

    name = "progressivity"

    def __init__(self, pictures: int = 16) -> None:
        self._pictures = pictures

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the smallest difference; of the pictures only the shape is used, labels are not read.

        Raises:
            CandidateError: as for :class:`Expressivity`, and ``degenerate`` for a single block.
        """
        entropies = block_entropies(module, images[: self._pictures])
        if len(entropies) < 2:
            raise CandidateError("degenerate", "progressivity needs two blocks that write features")
        return float(np.min(np.diff(entropies)))


class Trainability:
    """Mean over the blocks of how near the largest singular value s of their Jacobian is to 1: 2 - s - 1 / s.

    The Jacobian's spectrum is read from how a random sign vector at the block's output comes back at its input
    (equations 5 to 7 there). A block that passes gradients on unchanged is left out; a network of nothing else is
    degenerate.

    Args:
        pictures: noise inputs at most.
    """

    name = "trainability"

    def __init__(self, pictures: int = 16) -> None:
        self._pictures = pictures

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the mean, at most 0; of the pictures only the shape is used, labels are not read.

        Raises:
            CandidateError: ``degenerate`` for a network without blocks that change what they read, ``nan`` if its
                gradients are not finite.
        """
        with scratch(module) as twin, caught(twin) as features:
            twin.train()
            twin(_noise(images[: self._pictures]))
            found = [
                _nearness(read, written)
                # The last block writes the logits.
                for read, written in pairwise(features[:-1])
                if read.requires_grad and _rows_match(read, written)
            ]
        values = [value for value in found if value is not None]
        if not values:
            raise CandidateError("degenerate", "trainability: no block changes what it reads")
        return _finite(self.name, float(np.mean(values)))


def block_entropies(module: nn.Module, images: Tensor) -> list[float]:
    """Return the entropy of each block's features, of which expressivity and progressivity are made.

    Args:
        module: left as it was.
        images: of which only the shape is used; noise takes their place.

    Raises:
        CandidateError: as for :class:`Expressivity`.
    """
    with scratch(module) as twin, torch.no_grad(), caught(twin) as features:
        twin.train()
        twin(_noise(images))
    # The last block writes the logits.
    spectra = [_spectrum(as_rows(written)) for written in features[:-1]]
    if not spectra:
        raise CandidateError("degenerate", "expressivity needs a block that writes features")
    return [float(-(share * (share + _TINY).log()).sum()) for share in spectra]


def _spectrum(rows: Tensor) -> Tensor:
    """Return the eigenvalues of the covariance of (positions, channels), as shares of their sum."""
    if not torch.isfinite(rows).all():
        raise CandidateError("nan", "features of the untrained network are not finite")
    centred = rows - rows.mean(dim=0, keepdim=True)
    values = torch.linalg.eigvalsh(centred.T @ centred / len(rows)).clamp(min=0.0)
    shares: Tensor = values / values.sum().clamp(min=_TINY)
    return shares


def _noise(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise CandidateError("degenerate", "block scores read noise in the place of pictures, and tokens have none")
    return torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def _rows_match(read: Tensor, written: Tensor) -> bool:
    return read.ndim == written.ndim and len(as_rows(written)) > 0 and len(as_rows(read)) % len(as_rows(written)) == 0


def _nearness(read: Tensor, written: Tensor) -> float | None:
    """Return 2 - s - 1 / s of one block, or None where the gradient comes back as it was sent."""
    signs = torch.randint(0, 2, written.shape, generator=torch.Generator().manual_seed(0)).to(written.dtype) * 2 - 1
    (back,) = torch.autograd.grad(written, read, signs, retain_graph=True, allow_unused=True)
    if back is None or (back.shape == signs.shape and torch.equal(back, signs)):
        return None
    if back.ndim == 4 and back.shape[2] != signs.shape[2]:
        # Of a block that strides, the positions that one output position reads become channels.
        back = functional.pixel_unshuffle(back, back.shape[2] // signs.shape[2])
    inward, outward = as_rows(back), as_rows(signs)
    if len(inward) != len(outward):
        inward = inward.reshape(len(outward), -1)
    largest = float(torch.linalg.svdvals(inward.T @ outward / len(outward)).max())
    return 2.0 - largest - 1.0 / (largest + 1e-6)


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise CandidateError("nan", f"{name} is {value}")
    return value
