"""What the spaces refuse, what they count, and that equal networks are one architecture."""

import itertools

import numpy as np
import pytest

from nas.architecture import Architecture, Precision
from nas.data import Task
from nas.errors import ConfigError, DegenerateArchitectureError
from search_spaces.convnet import ConvNet
from search_spaces.genes import Genes
from search_spaces.reference import Reference
from search_spaces.specs import Bottleneck, Residual
from search_spaces.toy import Toy
from search_spaces.transformer import Transformer, token_count

TASK = Task("image_classification", channels=3, classes=10)


def draws(space, count=30):
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


def test_convnet_holds_only_active_genes():
    space = ConvNet(TASK, [32])
    for architecture in draws(space):
        choices = architecture.choices
        for stage in range(3):
            kind = choices[f"stage{stage}_block"]
            assert (f"stage{stage}_expansion" in choices) == (kind == "mbconv")
            assert (f"stage{stage}_fused_expansion" in choices) == (kind == "fused")
            assert (f"stage{stage}_kernel" in choices) == (kind == "mbconv")
            blocks = [name for name in architecture.precision if name.startswith(f"stage{stage}_")]
            assert len(blocks) == choices[f"stage{stage}_depth"]


def test_convnet_distinct_architectures_are_distinct_networks():
    arguments = {"stem_widths": [8], "strides": ["12"], "widths": [[8, 16]], "activations": ["relu", "silu"]}
    space = ConvNet(TASK, [16], precisions=["int8"], **arguments)
    networks = [repr(space.decode(architecture)) for architecture in space.every()]
    assert len(set(networks)) == len(networks) == space.size()


def test_convnet_strides_where_the_placement_says():
    space = ConvNet(TASK, [32])
    for architecture in draws(space):
        graph = space.lower(architecture)
        for stage, digit in enumerate(str(architecture.choices["strides"])[1:]):
            convs = [op for op in graph.mac_ops if op.block.startswith(f"stage{stage}_") and op.kind == "conv"]
            first = [op for op in convs if op.block.endswith("block0") and "/squeeze/" not in op.name]
            assert max(op.attributes["strides"][0] for op in first) == int(digit)
            later = [op for op in convs if not op.block.endswith("block0")]
            assert all(op.attributes["strides"] == (1, 1) for op in later)


def test_convnet_offers_all_three_kinds_of_block():
    specs = [spec for one in draws(ConvNet(TASK, [32])) for _, spec in ConvNet(TASK, [32]).decode(one).blocks]
    assert any(isinstance(spec, Residual) for spec in specs)
    assert {spec.fused for spec in specs if isinstance(spec, Bottleneck)} == {True, False}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"blocks": ["residul"]}, "Did you mean 'residual'"),
        ({"activations": ["hswich"]}, "Did you mean 'hswish'"),
        ({"precisions": ["fp8"]}, "expected one or more of fp32, fp16, int8, int4"),
        ({"precisions": []}, "expected one or more"),
        ({"strides": ["112"]}, "must have 4 digits"),
        ({"strides": ["1132"]}, "digits of 1 and 2"),
        ({"kernels": [3, 4]}, "odd"),
        ({"depths": []}, "one or more different options"),
        ({"depths": [1, 1]}, "one or more different options"),
    ],
)
def test_convnet_refuses_lists_that_make_no_space(arguments, part):
    with pytest.raises(ConfigError, match=part):
        ConvNet(TASK, [32], **arguments)


@pytest.mark.parametrize(
    ("side", "patch", "reason"),
    [(8, 16, "larger than the picture"), (32, 5, "does not divide"), (8, 8, "leaves 1 token"), (12, 12, "1 token")],
)
def test_transformer_refuses_patches_with_the_reason(side, patch, reason):
    with pytest.raises(DegenerateArchitectureError, match=reason):
        token_count(side, patch)


def test_transformer_counts_tokens():
    assert (token_count(8, 4), token_count(8, 2), token_count(32, 4)) == (4, 16, 64)


def test_transformer_refuses_heads_that_do_not_divide():
    space = Transformer(TASK, [32], heads=[2], kv_heads=[4])
    with pytest.raises(DegenerateArchitectureError, match="4 key and value heads do not divide 2 heads"):
        space.sample(np.random.default_rng(0))


def test_transformer_shrinks_keys_and_values_with_the_group():
    sizes = {}
    for kv_heads in (1, 2, 4):
        space = Transformer(TASK, [32], heads=[4], kv_heads=[kv_heads], head_sizes=[8], depths=[2], widths=[32])
        graph = space.lower(space.sample(np.random.default_rng(0)))
        sizes[kv_heads] = next(op.weights["weight"] for op in graph.ops if op.name.endswith("/qkv/Gemm"))
    assert sizes == {1: (48, 32), 2: (64, 32), 4: (96, 32)}


def test_toy_is_small_and_enumerates_what_makes_sense():
    space = Toy(TASK, [4, 8])
    assert space.size() == 96 < 200
    sensible = {architecture.id for architecture in space.enumerate()}
    degenerate = set()
    for architecture in space.every():
        try:
            space.check(architecture)
        except DegenerateArchitectureError:
            degenerate.add(architecture.id)
    assert degenerate
    assert sensible.isdisjoint(degenerate)
    assert len(sensible) + len(degenerate) == space.size()


def test_toy_refuses_to_grow():
    with pytest.raises(ConfigError, match="under 200"):
        Toy(TASK, [8, 16, 24, 32, 40])


def test_one_precision_is_that_of_every_block():
    for architecture in Toy(TASK, [8]).enumerate():
        assert set(architecture.precision.values()) == {Precision(str(architecture.choices["precision"]))}


def test_check_refuses_a_precision_that_contradicts_the_choice():
    space = Toy(TASK, [8])
    architecture = next(space.enumerate())
    mixed = Architecture(space.name, architecture.choices, {**architecture.precision, "head": Precision.INT8})
    with pytest.raises(DegenerateArchitectureError, match="precision_head"):
        space.check(mixed)


def test_reference_networks_have_their_published_size():
    # MobileNetV2 with 10 classes has 2,236,682 parameters: the 3,504,872 of the ImageNet model less 990 rows of
    # 1,281 in its classifier. ResNet-20 has 0.27 million (He et al. 2016, table 6); 269,722 plus 2,752 for the
    # projections.
    space = Reference(TASK, [32], widths=[1], precisions=["fp32"])
    counts = {}
    for architecture in space.enumerate():
        module = space.build(architecture)
        counts[architecture.choices["network"]] = sum(parameter.numel() for parameter in module.parameters())
    assert counts == {"mobilenet_v2": 2_236_682, "resnet20": 272_474}


def test_reference_networks_have_their_published_macs():
    space = Reference(TASK, [32], widths=[1.0], precisions=["int8"])
    macs = {one.choices["network"]: space.lower(one).macs for one in space.enumerate()}
    # 40.55 million in the 3x3 convolutions and the classifier, 0.26 million in the projections.
    assert macs["resnet20"] == 40_551_040 + 262_144
    assert 85e6 < macs["mobilenet_v2"] < 95e6


def test_reference_equal_widths_have_equal_ids():
    assert [a.id for a in Reference(TASK, [32], widths=[1]).every()] == [
        a.id for a in Reference(TASK, [32], widths=[1.0]).every()
    ]


def test_genes_ask_neither_for_one_option_nor_hide_the_order_of_integers():
    asked = []

    class Recorder:
        def suggest_categorical(self, name, choices, /):
            asked.append(("categorical", name))
            return choices[0]

        def suggest_int(self, name, low, high, /):
            asked.append(("int", name, low, high))
            return low

    genes = Genes(Recorder())
    genes.choose("only", [7])
    genes.choose("depth", [2, 3, 4])
    genes.choose("width", [8, 16])
    assert asked == [("int", "depth", 2, 4), ("categorical", "width")]
    assert genes.architecture("x").choices == {"only": 7, "depth": 2, "width": 8}


def test_mutation_reaches_every_gene_of_an_architecture():
    space, rng = ConvNet(TASK, [24, 32]), np.random.default_rng(0)
    architecture = space.sample(rng)
    edited = set()
    for _ in range(400):
        other = space.mutate(architecture, rng)
        edited |= {
            name
            for name, value in itertools.chain(architecture.choices.items(), architecture.precision.items())
            if {**other.choices, **other.precision}.get(name, value) != value
        }
    assert edited == {*architecture.choices, *architecture.precision}


def test_another_task_is_refused():
    with pytest.raises(ConfigError, match="image_classification"):
        ConvNet(Task("text", 1, 2), [32])
