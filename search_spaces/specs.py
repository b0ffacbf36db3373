"""Frozen descriptions of blocks: ``layers`` builds a module of one and ``lowering`` the ops, so the two agree.

A new kind of block is a new dataclass with one function registered in each of the two modules.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas.errors import DegenerateArchitectureError, unknown_name

ACTIVATIONS = ("relu", "relu6", "hswish", "silu", "gelu")
NORMS = ("layernorm", "rmsnorm")
POOLINGS = ("mean", "attention")


@dataclass(frozen=True)
class ConvUnit:
    """Convolution with ``kernel // 2`` padding, batch norm and activation.

    Args:
        inputs: channels read.
        outputs: channels written.
        kernel: side of the square kernel, odd.
        stride: of both axes.
        activation: one of ``ACTIVATIONS`` or ``none``.
        groups: 1, or ``inputs`` for a depthwise convolution.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    activation: str
    groups: int = 1


@dataclass(frozen=True)
class Residual:
    """Two convolutions and a shortcut (He et al. 2016, figure 2 left), a 1x1 projection where the shapes differ.

    Args:
        inputs: channels read.
        outputs: channels written.
        kernel: side of both square kernels.
        stride: of the first convolution and of the projection.
        activation: one of ``ACTIVATIONS``.
        squeeze: channels inside squeeze-and-excite, 0 for none.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    activation: str
    squeeze: int = 0

    @property
    def projects(self) -> bool:
        """True where the shortcut is a 1x1 convolution."""
        return self.stride != 1 or self.inputs != self.outputs


@dataclass(frozen=True)
class Bottleneck:
    """Inverted bottleneck: widen, filter per channel, narrow (Sandler et al. 2018, table 1).

    The fused form (Tan and Le 2021, figure 2) widens and filters in one dense convolution; without widening it is
    that convolution alone. The input is added where it has the shape of the output.

    Args:
        inputs: channels read.
        outputs: channels written.
        hidden: channels in the middle; equal to ``inputs`` there is no widening.
        kernel: side of the filtering kernel.
        stride: of the filtering convolution.
        activation: one of ``ACTIVATIONS``.
        squeeze: channels inside squeeze-and-excite, 0 for none.
        fused: one dense convolution instead of a 1x1 and a depthwise one.
    """

    inputs: int
    outputs: int
    hidden: int
    kernel: int
    stride: int
    activation: str
    squeeze: int = 0
    fused: bool = False

    @property
    def widens(self) -> bool:
        """True where the middle has more channels than the input."""
        return self.hidden != self.inputs

    @property
    def adds_input(self) -> bool:
        """True where the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True)
class PooledHead:
    """Optional 1x1 convolution, global average pooling and the classifier.

    Args:
        inputs: channels read.
        hidden: outputs of the 1x1 convolution, 0 for none.
        classes: logits written.
        activation: of the 1x1 convolution.
    """

    inputs: int
    hidden: int
    classes: int
    activation: str


@dataclass(frozen=True)
class PatchStem:
    """Patches to tokens by one strided convolution, plus a learned position (Dosovitskiy et al. 2021, equation 1).

    From here to the head the stream has shape (batch * tokens, width), so that every linear layer is one Gemm whose
    bias is fused when quantized.

    Args:
        channels: of the picture.
        width: features per token.
        patch: side of a patch in pixels.
        tokens: patches of a picture.
    """

    channels: int
    width: int
    patch: int
    tokens: int


@dataclass(frozen=True)
class TokenStem:
    """Tokens to rows of features by a table, plus a learned position.

    Args:
        vocabulary: rows of the table.
        width: features per token.
        tokens: of a text.
    """

    vocabulary: int
    width: int
    tokens: int


@dataclass(frozen=True)
class Attention:
    """Pre-norm self-attention with grouped keys and values (Ainslie et al. 2023), input added.

    Args:
        width: features per token.
        heads: query heads.
        kv_heads: key and value heads; divides ``heads``.
        head_size: features per head.
        tokens: of a picture.
        norm: one of ``NORMS``.
    """

    width: int
    heads: int
    kv_heads: int
    head_size: int
    tokens: int
    norm: str


@dataclass(frozen=True)
class CausalStem:
    """Tokens to rows of features by a table, plus the learned position of each; and who may attend to whom.

    Args:
        vocabulary: rows of the table.
        width: features per token.
        context: positions known.
        group: query heads per key and value head, for which the mask is repeated.
        tokens: at which the block is lowered; the network itself takes any number up to ``context``.
        shared: True where the output layer uses the table too.
    """

    vocabulary: int
    width: int
    context: int
    group: int
    tokens: int
    shared: bool


@dataclass(frozen=True)
class CausalAttention:
    """Pre-norm self-attention to what came before, with grouped keys and values that are kept for later tokens.

    Args:
        width: features per token.
        heads: query heads.
        kv_heads: key and value heads; divides ``heads``.
        head_size: features per head.
        tokens: at which the block is lowered.
        norm: one of ``NORMS``.
        past: tokens in the cache before them.
    """

    width: int
    heads: int
    kv_heads: int
    head_size: int
    tokens: int
    norm: str
    past: int = 0


@dataclass(frozen=True)
class LanguageHead:
    """Norm and the output layer.

    Args:
        width: features per token.
        vocabulary: logits per token.
        norm: one of ``NORMS``.
        tokens: at which the block is lowered.
        tied: True where the weights are the stem's table (Press and Wolf 2017).
    """

    width: int
    vocabulary: int
    norm: str
    tokens: int
    tied: bool


@dataclass(frozen=True)
class Mlp:
    """Pre-norm two-layer perceptron, input added.

    Args:
        width: features per token.
        hidden: features in the middle.
        activation: one of ``ACTIVATIONS``.
        norm: one of ``NORMS``.
    """

    width: int
    hidden: int
    activation: str
    norm: str


@dataclass(frozen=True)
class TokenHead:
    """Norm, pooling over the tokens, and the classifier.

    Args:
        width: features per token.
        tokens: of a picture.
        classes: logits written.
        norm: one of ``NORMS``.
        pooling: ``mean``, or ``attention``: softmax-weighted by one learned score per token.
    """

    width: int
    tokens: int
    classes: int
    norm: str
    pooling: str


@dataclass(frozen=True)
class Network:
    """Blocks in the order in which they run.

    Args:
        input_shape: (1, channels, height, width) of pictures, (1, tokens) of texts.
        blocks: name, free of dots and slashes, and its description.
    """

    input_shape: tuple[int, ...]
    blocks: tuple[tuple[str, object], ...]


def squeeze_channels(channels: int, ratio: float) -> int:
    """Return the channels inside squeeze-and-excite: ``ratio`` of ``channels``, at least 4; 0 for a ratio of 0."""
    return max(4, round(channels * ratio)) if ratio else 0


def strided(side: int, stride: int, where: str) -> int:
    """Return the side of a feature map after a stride, rounded up as same-padded convolutions do.

    Args:
        side: pixels of the map's side before.
        stride: of the convolution.
        where: for the message, such as ``stage 2``.

    Raises:
        DegenerateArchitectureError: the stride is longer than the map, so that it skips what is not there.
    """
    if stride > side:
        raise DegenerateArchitectureError(
            f"{where} strides by {stride} over a feature map of {side}x{side} pixels; "
            f"expected a map of at least {stride}x{stride}. Take a larger resolution or fewer strides."
        )
    return -(-side // stride)


def require_known(kind: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raise ConfigError with the corrected spelling for the first name that is not known."""
    for name in given:
        if name not in known:
            raise unknown_name(kind, name, known)
