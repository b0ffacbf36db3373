"""From block descriptions to a causal language model in torch, one network for training, prompt and single tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.protocols import OnnxSignature
from search_spaces.layers import BRANCH_GAIN, build_block, make_linear, make_norm
from search_spaces.specs import CausalAttention, CausalStem, LanguageHead, Network

_BLOCKED = -1e9
# Example sizes of the export; all axes that differ between prompt and single token are free.
_EXAMPLE_TOKENS, _EXAMPLE_PAST = 3, 2


class CausalEmbedding(nn.Module):
    """Token numbers to rows of features, with the mask for the layers behind."""

    def __init__(self, spec: CausalStem) -> None:
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec.vocabulary, spec.width)
        self.table = nn.Parameter(torch.empty(spec.context, spec.width))
        for weight in (self.embed.weight, self.table):
            nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)

    def forward(self, tokens: Tensor, past: int) -> tuple[Tensor, Tensor]:
        """Map (batch, tokens) to rows (batch * tokens, width) and a mask (group * tokens, past + tokens)."""
        end = past + tokens.shape[1]
        rows = self.embed(tokens) + self.table[past:end]
        places = torch.arange(end)
        mask = torch.where(places[None, :] > places[past:, None], _BLOCKED, 0.0)
        return rows.reshape(-1, self.spec.width), mask.repeat(self.spec.group, 1)


class CausalAttentionBlock(nn.Module):
    """Softmax(q k^T / sqrt(head_size) + mask) v, the queries of a group stacked so that no key is repeated."""

    def __init__(self, spec: CausalAttention) -> None:
        super().__init__()
        self.spec = spec
        self.scale = spec.head_size**-0.5
        self.norm = make_norm(spec.norm, spec.width)
        self.qkv = make_linear(spec.width, (spec.heads + 2 * spec.kv_heads) * spec.head_size)
        self.out = make_linear(spec.heads * spec.head_size, spec.width, BRANCH_GAIN)

    def forward(
        self, x: Tensor, mask: Tensor, batch: int, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map rows (batch * tokens, width) to the same shape, and return keys and values with those of the past.

        Args:
            x: rows.
            mask: of shape (group * tokens, past + tokens), added to the scores.
            batch: number of texts.
            past: keys and values of shape (batch, kv_heads, past, head_size), or None.
        """
        heads, kv_heads, size = self.spec.heads, self.spec.kv_heads, self.spec.head_size
        joint = self.qkv(self.norm(x)).reshape(batch, -1, heads + 2 * kv_heads, size).transpose(1, 2)
        query, key, value = joint.split((heads, kv_heads, kv_heads), dim=1)
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        grouped = heads > kv_heads
        if grouped:
            query = query.reshape(batch, kv_heads, -1, size)
        scores = torch.matmul(query * self.scale, key.transpose(-2, -1)) + mask
        mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
        if grouped:
            mixed = mixed.reshape(batch, heads, -1, size)
        rows = mixed.transpose(1, 2).reshape(-1, heads * size)
        return x + self.out(rows), key, value


class LanguageOutput(nn.Module):
    """Norm and logits per token."""

    def __init__(self, spec: LanguageHead) -> None:
        super().__init__()
        self.norm = make_norm(spec.norm, spec.width)
        if not spec.tied:
            self.weight = nn.Parameter(torch.empty(spec.vocabulary, spec.width))
            nn.init.trunc_normal_(self.weight, std=0.02, a=-0.04, b=0.04)
        # A tied layer has one too: without it the exporter stores the table a second time, transposed.
        self.bias = nn.Parameter(torch.zeros(spec.vocabulary))

    def forward(self, x: Tensor, table: Tensor | None) -> Tensor:
        """Map rows (batch * tokens, width) to (batch * tokens, vocabulary) by the table, or by weights of its own."""
        return functional.linear(self.norm(x), self.weight if table is None else table, self.bias)


class CausalDecoder(nn.Module):
    """Stem, layers and head; children carry the names of the blocks.

    Args:
        network: blocks in order.
        variants: cost to the sizes of the free axes ``tokens`` and ``past`` at which it is taken.
    """

    def __init__(self, network: Network, variants: Mapping[str, Mapping[str, int]]) -> None:
        super().__init__()
        self._variants = variants
        self._specs = dict(network.blocks)
        for name, spec in network.blocks:
            self.add_module(name, build_block(spec))
        stem, head = network.blocks[0], network.blocks[-1]
        self._stem, self._head = stem[0], head[0]
        self._tied = cast(LanguageHead, head[1]).tied
        self._attentions = [spec for name, spec in network.blocks[1:-1] if isinstance(spec, CausalAttention)]

    def forward(self, tokens: Tensor, *past: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map (batch, tokens) to logits (batch, tokens, vocabulary).

        Args:
            tokens: numbers of the tokens that are new.
            past: for each layer keys and values of shape (batch, kv_heads, past, head_size). Without them nothing came
                before, and the logits are returned alone; with them the grown keys and values follow.
        """
        # Frozen when the network is exported: the file serves one text at a time.
        batch = int(tokens.shape[0])
        stem = cast(CausalEmbedding, self.get_submodule(self._stem))
        rows, mask = stem(tokens, past[0].shape[2] if past else 0)
        present: list[Tensor] = []
        for name, spec in list(self._specs.items())[1:-1]:
            block = self.get_submodule(name)
            if isinstance(spec, CausalAttention):
                kept = (past[len(present)], past[len(present) + 1]) if past else None
                rows, key, value = block(rows, mask, batch, kept)
                present += [key, value]
            else:
                rows = block(rows)
        logits = self.get_submodule(self._head)(rows, stem.embed.weight if self._tied else None)
        logits = logits.reshape(batch, -1, logits.shape[-1])
        return (logits, *present) if past else logits

    def onnx_signature(self) -> OnnxSignature:
        """Return inputs, outputs and free axes of the one file that reads prompts and single tokens."""
        spec = self._attentions[0]
        cache = torch.zeros(1, spec.kv_heads, _EXAMPLE_PAST, spec.head_size)
        names = [f"{index}_{kind}" for index in range(len(self._attentions)) for kind in ("key", "value")]
        return OnnxSignature(
            example=(torch.zeros(1, _EXAMPLE_TOKENS, dtype=torch.int64), *[cache] * len(names)),
            inputs=("input", *(f"past_{name}" for name in names)),
            outputs=("logits", *(f"present_{name}" for name in names)),
            free={
                "input": {1: "tokens"},
                "logits": {1: "tokens"},
                **{f"past_{name}": {2: "past"} for name in names},
                **{f"present_{name}": {2: "present"} for name in names},
            },
            metadata={"hwnas.variants": json.dumps(self._variants)},
        )


build_block.register(CausalStem, CausalEmbedding)
build_block.register(CausalAttention, CausalAttentionBlock)
build_block.register(LanguageHead, LanguageOutput)
