"""Causal language models: a decoder with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from nas.architecture import Architecture
from nas.data import Task
from nas.errors import ConfigError
from nas.graph import Graph
from search_spaces.block_space import BlockSpace, require_task
from search_spaces.genes import Genes, as_precisions, options_of
from search_spaces.lowering import lower_network
from search_spaces.specs import (
    ACTIVATIONS,
    NORMS,
    CausalAttention,
    CausalStem,
    LanguageHead,
    Network,
    require_known,
)
from search_spaces.token_layers import ask_heads, ask_layers, check_layers, count_layers, layer_blocks

if TYPE_CHECKING:
    from torch import nn

_CACHE_BYTES = 4


@dataclass(eq=False)
class Decoder(BlockSpace):
    """Embedding of tokens and positions, pre-norm layers of causal attention and MLP, and an output layer.

    Every argument but ``task`` and ``prompt`` is the list of a gene's options. Precision is asked for the attention and
    for the MLP of each layer, for the output layer, and for the embedding unless it is tied to the output layer and
    follows that.

    Its costs: ``ttft_ms``, reading a prompt of ``prompt`` tokens up to the logits of the next; ``token_ms``, one token
    with the cache full but for it, which is the slowest; ``kv_cache_kib``, a full cache of 32-bit floats.

    Args:
        task: language model.
        contexts: tokens that the network can look back on, itself included.
        prompt: tokens at which the time to the first token is taken, and at which the network is lowered.
        widths: features per token.
        depths: layers.
        heads: query heads.
        kv_heads: key and value heads; must divide ``heads``.
        head_sizes: features per head.
        mlp_ratios: hidden features of a layer's MLP over the width, asked per layer.
        activations: of the MLPs.
        norms: of ``layernorm`` and ``rmsnorm``.
        embeddings: of ``tied`` and ``own``: whether the output layer shares the embedding's table.
        precisions: of ``fp32``, ``int8`` and ``int4``, the last with weights of 4 bits in the linear layers and the
            table of words and with the rest in float.

    Raises:
        ConfigError: a list is empty, repeats itself, or names what does not exist; the prompt does not fit.
    """

    task: Task
    contexts: Sequence[int]
    prompt: int = 32
    widths: Sequence[int] = (64, 96, 128, 192)
    depths: Sequence[int] = (2, 3, 4, 5, 6)
    heads: Sequence[int] = (2, 4, 8)
    kv_heads: Sequence[int] = (1, 2, 4)
    head_sizes: Sequence[int] = (16, 32)
    mlp_ratios: Sequence[int] = (1, 2, 3, 4)
    activations: Sequence[str] = ("relu", "gelu", "hswish")
    norms: Sequence[str] = NORMS
    embeddings: Sequence[str] = ("tied", "own")
    precisions: Sequence[str] = ("fp32", "int8")
    name: str = field(default="decoder", init=False)

    def __post_init__(self) -> None:
        require_task(self.name, self.task, "language_model")
        for gene in (
            *("contexts", "widths", "depths", "heads", "kv_heads", "head_sizes", "mlp_ratios"),
            *("activations", "norms", "embeddings"),
        ):
            setattr(self, gene, options_of(gene, getattr(self, gene)))
        self.precisions = as_precisions(self.precisions)
        check_layers(self, "widths", self.widths)
        require_known("activation", tuple(self.activations), ACTIVATIONS)
        require_known("embedding", tuple(self.embeddings), ("tied", "own"))
        if not 1 <= self.prompt <= min(self.contexts):
            raise ConfigError(f"space.prompt={self.prompt}; expected 1 to {min(self.contexts)}, the shortest context")

    def ask(self, genes: Genes) -> None:
        """Ask for the global genes, then layer by layer."""
        genes.choose("context", self.contexts)
        genes.choose("width", self.widths)
        ask_heads(genes, self)
        genes.choose("activation", self.activations)
        genes.choose("norm", self.norms)
        if genes.choose("embedding", self.embeddings) == "own":
            genes.choose_precision("stem", self.precisions)
        else:
            genes.fix_precision("shared_stem", "fp32")
        ask_layers(genes, self, "depth", self.depths)
        genes.choose_precision("head", self.precisions)

    def decode(self, architecture: Architecture) -> Network:
        """Return stem, layers and head, as they read the prompt.

        Raises:
            DegenerateArchitectureError: the key and value heads do not divide the heads.
        """
        return self._blocks(architecture, self.prompt, 0)

    def lower_step(self, architecture: Architecture) -> Graph:
        """Return the graph of one more token with the cache full but for it."""
        self.check(architecture)
        blocks = self._blocks(architecture, 1, int(architecture.choices["context"]) - 1)
        return lower_network(blocks, architecture.precision)

    def _blocks(self, architecture: Architecture, tokens: int, past: int) -> Network:
        choices = architecture.choices
        width, context = int(choices["width"]), int(choices["context"])
        group, norm = int(choices["heads"]) // int(choices["kv_heads"]), str(choices["norm"])
        tied = choices["embedding"] == "tied"
        vocabulary = self.task.vocabulary

        def attention(heads: int, kv_heads: int, head_size: int) -> CausalAttention:
            return CausalAttention(width, heads, kv_heads, head_size, tokens, norm, past)

        layers = layer_blocks(choices, int(choices["depth"]), width, attention)
        stem = ("shared_stem" if tied else "stem", CausalStem(vocabulary, width, context, group, tokens, tied))
        return Network((1, tokens), (stem, *layers, ("head", LanguageHead(width, vocabulary, norm, tokens, tied))))

    def build(self, architecture: Architecture) -> nn.Module:
        """Return the network with fresh weights from torch's global generator, one child per block."""
        from search_spaces.causal import CausalDecoder

        self.check(architecture)
        context = int(architecture.choices["context"])
        variants = {
            "ttft_ms": {"tokens": self.prompt, "past": 0},
            "token_ms": {"tokens": 1, "past": context - 1},
        }
        return CausalDecoder(self.decode(architecture), variants)

    def input_size(self, architecture: Architecture) -> tuple[int, ...]:
        """Return (context,)."""
        return (int(architecture.choices["context"]),)

    def exact_costs(self, architecture: Architecture) -> dict[str, tuple[float, str]]:
        """Return ``kv_cache_kib``: keys and values of all layers for a full context."""
        choices = architecture.choices
        values = 2 * prod(int(choices[name]) for name in ("depth", "kv_heads", "head_size", "context"))
        return {"kv_cache_kib": (values * _CACHE_BYTES / 1024, "KiB")}

    def size(self) -> int:
        """Return how many architectures there are, degenerate ones included."""
        everywhere = (
            *(self.contexts, self.widths, self.heads, self.kv_heads, self.head_sizes, self.activations, self.norms),
        )
        states = len(self.precisions)
        embeddings = sum(states if kind == "own" else 1 for kind in self.embeddings)
        return prod(map(len, everywhere)) * embeddings * states * count_layers(self, self.depths)
