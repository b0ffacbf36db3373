"""Layers of attention and MLP: their genes, blocks and number, for every space that has some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from nas.architecture import Choice
from nas.errors import DegenerateArchitectureError
from search_spaces.genes import Genes, require_int4_groups
from search_spaces.specs import NORMS, Mlp, require_known

AttentionOf = Callable[[int, int, int], object]
"""Makes the attention of one layer from heads, key and value heads, and features per head."""


class LayerOptions(Protocol):
    """What a space offers for its layers; :class:`search_spaces.transformer.Transformer` says what each list is."""

    heads: Sequence[int]
    kv_heads: Sequence[int]
    head_sizes: Sequence[int]
    mlp_ratios: Sequence[int]
    norms: Sequence[str]
    precisions: Sequence[str]


def check_layers(options: LayerOptions, name: str, widths: Sequence[int]) -> None:
    """Raise ConfigError for unknown norms, and for sizes that int4 cannot group where it is offered.

    Args:
        options: of the space.
        name: of the gene that says the features per token.
        widths: its options.
    """
    joined = sorted({heads * size for heads in options.heads for size in options.head_sizes})
    require_int4_groups(options.precisions, {name: widths, "heads times head_sizes": joined})
    require_known("norm", tuple(options.norms), NORMS)


def ask_heads(genes: Genes, options: LayerOptions) -> None:
    """Ask for what all layers share."""
    genes.choose("heads", options.heads)
    genes.choose("kv_heads", options.kv_heads)
    genes.choose("head_size", options.head_sizes)


def ask_layers(genes: Genes, options: LayerOptions, name: str, counts: Sequence[int]) -> None:
    """Ask for the number of layers, gene ``name``, then layer by layer for MLP and precisions."""
    for layer in range(genes.choose(name, counts)):
        genes.choose(f"layer{layer}_mlp_ratio", options.mlp_ratios)
        genes.choose_precision(f"layer{layer}_attention", options.precisions)
        genes.choose_precision(f"layer{layer}_mlp", options.precisions)


def layer_blocks(
    choices: Mapping[str, Choice], layers: int, width: int, attention: AttentionOf
) -> list[tuple[str, object]]:
    """Return attention and MLP of each layer.

    Args:
        choices: ``heads``, ``kv_heads``, ``head_size``, ``activation``, ``norm``, and those of the layers.
        layers: how many.
        width: features per token.
        attention: as the space wants it.

    Raises:
        DegenerateArchitectureError: the key and value heads do not divide the heads.
    """
    heads, kv_heads = int(choices["heads"]), int(choices["kv_heads"])
    if heads % kv_heads:
        raise DegenerateArchitectureError(
            f"{kv_heads} key and value heads do not divide {heads} heads; expected a divisor of {heads}"
        )
    blocks: list[tuple[str, object]] = []
    for layer in range(layers):
        hidden = width * int(choices[f"layer{layer}_mlp_ratio"])
        blocks.append((f"layer{layer}_attention", attention(heads, kv_heads, int(choices["head_size"]))))
        blocks.append((f"layer{layer}_mlp", Mlp(width, hidden, str(choices["activation"]), str(choices["norm"]))))
    return blocks


def count_layers(options: LayerOptions, counts: Sequence[int]) -> int:
    """Return in how many ways the layers can be chosen, precisions included."""
    per_layer = len(options.mlp_ratios) * len(options.precisions) ** 2
    total: int = sum(per_layer**count for count in counts)
    return total
