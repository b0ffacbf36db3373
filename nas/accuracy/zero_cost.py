"""Scores of untrained networks: they rank candidates in milliseconds and are never called accuracy.

Every proxy works on a copy, so that the network's weights, buffers, mode, gradients and hooks stay as they were, and
inside a fork of torch's random state. A larger score is better.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nas.accuracy.block_scores import Expressivity, Progressivity, Trainability
from nas.accuracy.combined import COMBINED, DEFAULT
from nas.accuracy.gradient_scores import Dss, GradientNorm, JacobianCovariance, Snip, ZiCo
from nas.accuracy.pattern_scores import Meco, Naswot, Swap
from nas.accuracy.scratch import scratch
from nas.errors import CandidateError, ConfigError, unknown_name
from nas.graph import Graph
from nas.protocols import AccuracyProxy


class Params:
    """Counts trainable values; the baseline that every better proxy has to beat."""

    name = "params"

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the number of values in all parameters; pictures and labels are not read."""
        return float(sum(parameter.numel() for parameter in module.parameters()))


class Macs:
    """Counts multiply-accumulates for one sample, those between two activations in attention included.

    Torch's own counter watches the operators as they run, so it needs no graph; ``Graph.macs`` of the lowered
    network is the number that constraints use, and the two agree.
    """

    name = "macs"

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the multiply-accumulates of the first picture; labels are not read."""
        # The fused attention kernels of the CPU are unknown to the counter; the plain one is two matmuls.
        with scratch(module) as twin, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            twin.eval()
            with FlopCounterMode(display=False) as counter:
                twin(images[:1])
        return float(counter.get_total_flops()) / 2.0


class Synflow:
    """Synaptic flow: how much of an all-ones input reaches the output over all paths of absolute weights.

    Tanaka et al. 2020: R = 1^T (prod_l |W_l|) 1 and the score is the sum over weights of dR/dw * w. Returned is its
    natural logarithm, since the sum grows exponentially with depth; computed in float64. Normalisations, that would
    undo the flow (a layer norm's outputs add up to 0), are passed through unchanged; biases and other
    one-dimensional parameters carry no score.
    """

    name = "synflow"

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return ln of the synaptic flow; of the pictures only the shape is used, labels are not read.

        Raises:
            CandidateError: ``degenerate`` if no flow reaches the output, ``nan`` if it overflows even in float64.
        """
        with scratch(module) as twin:
            twin.double().eval()
            twin.zero_grad(set_to_none=True)
            with torch.no_grad():
                for parameter in twin.parameters():
                    parameter.requires_grad_(True).abs_()
            for layer in twin.modules():
                if _is_norm(layer):
                    layer.register_forward_hook(_pass_through)
            # Tokens have no magnitude: the flow starts at the embeddings of one text.
            ones = images[:1] if not images.is_floating_point() else torch.ones((1, *images.shape[1:])).double()
            twin(ones).sum().backward()
            flow = sum(
                float((parameter.grad * parameter.detach()).abs().sum())
                for parameter in twin.parameters()
                if parameter.grad is not None and parameter.ndim >= 2
            )
        if not math.isfinite(flow):
            raise CandidateError("nan", f"synaptic flow is {flow}")
        if flow <= 0.0:
            raise CandidateError("degenerate", "no synaptic flow reaches the output")
        return math.log(flow)


def _is_norm(layer: nn.Module) -> bool:
    """Tell normalisations, also a space's own, by their name; blocks that merely contain one have children."""
    return "norm" in type(layer).__name__.lower() and not any(True for _ in layer.children())


def _pass_through(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    given = inputs[0]
    return given if isinstance(given, Tensor) and given.shape == output.shape else output


PROXIES: Mapping[str, Callable[[], AccuracyProxy]] = {
    proxy.name: proxy
    for proxy in (
        *(Synflow, Naswot, Params, Macs, JacobianCovariance, Snip, GradientNorm, Dss),
        *(Expressivity, Progressivity, Trainability, ZiCo, Swap, Meco),
    )
}


# Proxies of a user's own, by name, that a config of this process made.
_OWN: dict[str, AccuracyProxy] = {}


def own_proxy(proxy: AccuracyProxy) -> str:
    """Make a proxy of a user's own known in this process and return its name.

    Raises:
        ConfigError: it has no name, or one of ours.
    """
    name = getattr(proxy, "name", None)
    if (
        not isinstance(name, str)
        or not name.isidentifier()
        or name in (*PROXIES, COMBINED)
        or not hasattr(proxy, "score")
    ):
        raise ConfigError(
            f"proxy {type(proxy).__name__} has the name {name!r}; expected a word of its own, beside a method score"
        )
    _OWN[name] = proxy
    return name


@dataclass(frozen=True)
class ProxyScore:
    """A score and what it took.

    Args:
        value: larger is better; comparable within one proxy only.
        seconds: wall-clock time.
    """

    value: float
    seconds: float


def make_proxy(name: str) -> AccuracyProxy:
    """Return the proxy of that name.

    Raises:
        ConfigError: unknown name, with the closest known one.
    """
    if name in _OWN:
        return _OWN[name]
    if name == COMBINED:
        raise ConfigError(f"'{COMBINED}' has no score of its own: it ranks {', '.join(DEFAULT)} within a population")
    if name not in PROXIES:
        raise unknown_name("proxy", name, (*PROXIES, COMBINED))
    return PROXIES[name]()


def score_timed(
    module: nn.Module, images: Tensor, labels: Tensor, names: Sequence[str], graph: Graph | None = None
) -> dict[str, ProxyScore]:
    """Return score and seconds per proxy; see :func:`score_all`."""
    counted = {} if graph is None else {"params": float(graph.parameters), "macs": float(graph.macs)}
    scores = {}
    for name in names:
        proxy = make_proxy(name)
        began = time.monotonic()
        value = counted[name] if name in counted else proxy.score(module, images, labels)
        scores[name] = ProxyScore(value, time.monotonic() - began)
    return scores


def score_all(
    module: nn.Module, images: Tensor, labels: Tensor, names: Sequence[str], graph: Graph | None = None
) -> dict[str, float]:
    """Return the score per proxy; the module is left as it was.

    Args:
        module: network with fresh weights.
        images: normalised pictures, shape (batch, channels, height, width).
        labels: shape (batch,).
        names: keys of ``PROXIES``.
        graph: the lowered network, from which ``params`` (norms folded) and ``macs`` are then read instead of counted.

    Raises:
        ConfigError: unknown name.
        CandidateError: a proxy cannot score this network.
    """
    return {name: score.value for name, score in score_timed(module, images, labels, names, graph).items()}


class ZeroCost:
    """Stands in for training in a search that ranks by one proxy alone; its metric is ``proxy_score``.

    Args:
        proxy: a key of ``PROXIES``, such as ``naswot``, or ``combined``, or a proxy of a user's own.

    Raises:
        ConfigError: an unknown name, or a proxy of one's own without a name, or under one of ours.
    """

    def __init__(self, proxy: str | AccuracyProxy = "naswot") -> None:
        if isinstance(proxy, str):
            if proxy != COMBINED:
                make_proxy(proxy)
            self.proxy = proxy
            return
        self.proxy = own_proxy(proxy)

    @property
    def key(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 over the settings."""
        return hashlib.sha256(f"zero_cost:{self.proxy}".encode()).hexdigest()[:12]
