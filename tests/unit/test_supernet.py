import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.accuracy.shared_weights import SharedWeights, part_of, recalibrate, unfilled
from nas.accuracy.supernet import Supernet, sharing
from nas.accuracy.supernet_training import SupernetTraining
from nas.data import Task
from nas.data.digits import Digits
from nas.errors import ConfigError, ModelFileError
from nas.protocols import WeightSharing
from search_spaces.convnet import ConvNet
from search_spaces.hybrid import Hybrid
from search_spaces.toy import Toy
from search_spaces.transformer import Transformer

TASK = Task("image_classification", channels=1, classes=10)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits():
    return Digits(resolutions=(8,)).load()


def tiny(**options):
    given = {
        **{"stem_widths": (2, 4), "strides": ("122", "121"), "widths": ((2, 4), (4, 6)), "depths": (1, 2)},
        **{"kernels": (3, 5), "dense_kernels": (3, 5), "expansions": (1, 2), "head_widths": (0, 8)},
    }
    return ConvNet(TASK, (8,), **{**given, **options})


def tokens(**options):
    given = {
        **{"patches": (2, 4), "widths": (8, 16), "depths": (1, 2), "heads": (2, 4), "kv_heads": (1, 2)},
        **{"head_sizes": (4, 8), "mlp_ratios": (1, 3)},
    }
    return Transformer(TASK, (8,), **{**given, **options})


def texts():
    task = Task("text_classification", channels=0, classes=5, vocabulary=50)
    small = tokens()
    kept = ("widths", "depths", "heads", "kv_heads", "head_sizes", "mlp_ratios")
    return Transformer(task, lengths=(4, 8), **{name: getattr(small, name) for name in kept})


def mixed():
    return Hybrid(
        TASK,
        (8, 12),
        stem_widths=(2, 4),
        strides=("112", "211", "111"),
        widths=((2, 4), (4, 6)),
        depths=(1, 2),
        token_widths=(8, 16),
        layers=(1, 2),
        head_sizes=(4, 8),
    )


SPACES = pytest.mark.parametrize("make", [tiny, tokens, texts, mixed])


def inputs_of(space, architecture, count):
    generator, size = torch.Generator().manual_seed(0), space.input_size(architecture)
    if space.task.kind == "text_classification":
        return torch.randint(space.task.vocabulary, (count, *size), generator=generator)
    return torch.randn(count, 1, *size, generator=generator)


@SPACES
def test_every_network_finds_its_weights_among_the_shared_ones(make):
    space = make()
    assert isinstance(space, WeightSharing)
    shared = SharedWeights.fresh(space, 0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        architecture = space.sample(rng)
        module = space.build(architecture)
        shared.extract(architecture, module)


@SPACES
def test_a_network_of_the_shared_weights_says_exactly_what_its_own_module_says(make):
    space = make()
    shared, rng = SharedWeights.fresh(space, 0), np.random.default_rng(1)
    for architecture in [*space.sandwich(rng, 4), *space.sandwich(rng, 4)]:
        module = space.build(architecture).train()
        shared.extract(architecture, module)
        inputs = inputs_of(space, architecture, 6)
        assert torch.equal(module(inputs), shared.logits(architecture, inputs))


class _Noting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@SPACES
def test_a_network_that_borrows_its_weights_fills_none_of_its_own(make):
    space, filling = make(), {"normal_", "uniform_", "fill_", "zero_"}
    for architecture in space.sandwich(np.random.default_rng(0), 2):
        with _Noting() as noted:
            module = unfilled(space, architecture)
        assert all(parameter.is_meta for parameter in module.parameters())
        assert not noted.names & filling
        with _Noting() as noted, torch.device("meta"):
            filled = space.build(architecture)
        assert noted.names & filling
        assert [(name, one.shape) for name, one in module.named_parameters()] == [
            (name, one.shape) for name, one in filled.named_parameters()
        ]


@pytest.mark.parametrize("make", [tiny, mixed])
def test_convolutions_begin_as_the_smallest_that_a_network_has(make):
    space, rng = make(), np.random.default_rng(0)
    tensors, least = SharedWeights.fresh(space, 0).tensors, {}
    for _ in range(300):
        architecture = space.sample(rng)
        blocks = space.shared_blocks(architecture)
        for name, weight in unfilled(space, architecture).named_parameters():
            block, _, path = name.partition(".")
            key = f"{blocks[block]}.{path}"
            least[key] = tuple(map(min, weight.shape, least.get(key, weight.shape)))
    smaller = 0
    for key, sizes in least.items():
        if len(sizes) != 4:
            continue
        whole = tensors[key].detach()
        inner = part_of(whole, (len(whole), *sizes[1:]))
        assert (inner != 0).all(), key
        assert whole.count_nonzero() == inner.numel(), key
        smaller += inner.numel() < whole.numel()
    assert smaller > 5


def test_a_bottleneck_that_does_not_widen_has_weights_of_its_own():
    space = tiny(blocks=("mbconv",))
    rng, names = np.random.default_rng(0), {}
    while len(names) < 2:
        architecture = space.sample(rng)
        expansion = architecture.choices["stage0_expansion"]
        names[expansion] = space.shared_blocks(architecture)["stage0_block0"]
    # Its depthwise convolution reads the block's input, not channels that another convolution made of it.
    assert names[1] != names[2]


def test_the_widest_transformers_use_every_entry_of_the_shared_tensors():
    space = tokens(activations=("gelu",))
    shared, rng = SharedWeights.fresh(space, 0), np.random.default_rng(0)
    unused = {name: torch.ones(tensor.shape, dtype=torch.bool) for name, tensor in shared.tensors.items()}
    for _ in range(40):
        widest = space.sandwich(rng, 0)[0]
        shared.logits(widest, inputs_of(space, widest, 4)).square().sum().backward()
        for name, tensor in shared.tensors.items():
            if tensor.grad is not None:
                unused[name] &= tensor.grad == 0
    # The bias of the keys adds the same to all scores of a query, which softmax takes out again but for rounding.
    assert [name for name, entries in unused.items() if entries.any() and not name.endswith("qkv.bias")] == []


def test_a_head_of_a_smaller_attention_is_the_head_of_the_largest():
    space = tokens(norms=("layernorm",), poolings=("mean",))
    shared, rng = SharedWeights.fresh(space, 0), np.random.default_rng(0)
    wanted = {"heads": 2, "kv_heads": 2, "head_size": 4, "width": 8}
    architecture = space.sample(rng)
    while not wanted.items() <= architecture.choices.items():
        architecture = space.sample(rng)
    module = space.build(architecture)
    shared.extract(architecture, module)
    # The largest has queries 0 to 3, keys 0 and 1, values 0 and 1 of 8 features each. Queries 0 and 1 ask key 0, 2
    # and 3 key 1, so that one of each pair stays.
    whole = shared.tensors["layer0_attention.kv2.qkv.weight"].detach().reshape(8, 8, 16)
    part = module.layer0_attention.qkv.weight.detach().reshape(6, 4, 8)
    for mine, theirs in enumerate((0, 2, 4, 5, 6, 7)):
        assert torch.equal(part[mine], whole[theirs, :4, :8])
    mixing = shared.tensors["layer0_attention.kv2.out.weight"].detach().reshape(16, 4, 8)
    cut = module.layer0_attention.out.weight.detach().reshape(8, 2, 4)
    assert torch.equal(cut, mixing[:8, [0, 2], :4])


def test_a_sandwich_of_transformers_has_the_widest_and_the_narrowest_at_one_length():
    space = texts()
    for seed in range(4):
        widest, narrowest, *others = space.sandwich(np.random.default_rng(seed), 2)
        assert len({one.choices["length"] for one in (widest, narrowest, *others)}) == 1
        genes = ("width", "heads", "head_size", "depth", "layer0_mlp_ratio")
        assert [widest.choices[gene] for gene in genes] == [16, 4, 8, 2, 3]
        assert [narrowest.choices[gene] for gene in genes] == [8, 2, 4, 1, 1]
        # Keys shared by more queries are no smaller version of what the widest has: that is drawn.
    drawn = {space.sandwich(np.random.default_rng(seed), 0)[0].choices["kv_heads"] for seed in range(20)}
    assert drawn == {1, 2}


def test_gradients_reach_the_part_that_was_used_and_nothing_else():
    space = tiny(stem_widths=(2, 4), activations=("relu",))
    shared, rng = SharedWeights.fresh(space, 0), np.random.default_rng(0)
    narrowest = space.sandwich(rng, 0)[1]
    assert narrowest.choices["stem_width"] == 2
    shared.logits(narrowest, torch.randn(4, 1, 8, 8)).square().sum().backward()
    gradient = shared.tensors["stem.conv.conv.weight"].grad
    assert gradient is not None
    assert (gradient[:2] != 0).any()
    assert (gradient[2:] == 0).all()


def test_a_sandwich_has_the_widest_and_the_narrowest_at_one_resolution():
    space = replace(tiny(), resolutions=(8, 12))
    for seed in range(4):
        widest, narrowest, *others = space.sandwich(np.random.default_rng(seed), 3)
        assert len(others) == 3
        assert len({one.choices["resolution"] for one in (widest, narrowest, *others)}) == 1
        assert [widest.choices[gene] for gene in ("stem_width", "stage0_width", "stage1_depth")] == [4, 4, 2]
        assert [narrowest.choices[gene] for gene in ("stem_width", "stage0_width", "stage1_depth")] == [2, 2, 1]


def test_a_part_is_the_first_channels_and_the_middle_of_the_kernel():
    whole = torch.arange(2 * 3 * 5 * 5).reshape(2, 3, 5, 5)
    assert torch.equal(part_of(whole, (1, 2, 3, 3)), whole[:1, :2, 1:4, 1:4])
    assert torch.equal(part_of(whole, whole.shape), whole)


def test_recalibration_sets_the_mean_over_the_batches():
    module = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5)).train()
    batches = [torch.full((2, 1, 2, 2), value) for value in (1.0, 4.0)]
    recalibrate(module, batches)
    assert module[0].running_mean.item() == pytest.approx(2.5)
    assert module[0].momentum == pytest.approx(0.1)
    assert not any(layer.training for layer in module.modules())


def recipe(tmp_path, **settings):
    given = {"passes": 2, "warmup_passes": 0.5, "subnetworks": 1, "learning_rate": 0.01, "recalibration_images": 128}
    return Supernet(file=str(tmp_path / "net.safetensors"), **{**given, **settings})


def test_training_lowers_the_loss_and_the_file_serves_another_search(tmp_path, digits):
    wider = {"stem_widths": (4, 8), "widths": ((6, 12), (12, 24)), "strides": ("122",)}
    space, supernet = tiny(**wider), recipe(tmp_path, passes=3, batch_size=32)
    path = supernet.prepare(space, digits, seed=0)
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        # What is finished holds no optimizer.
        assert not any(name.startswith("optimizer/") for name in file.keys())  # noqa: SIM118
    first, last = facts["history"][0], facts["history"][-1]
    assert last["loss"] < first["loss"]
    assert last["others_loss"] < first["others_loss"]

    architecture = space.sandwich(np.random.default_rng(0), 0)[0]
    encoding = digits.preprocessing(*space.input_size(architecture))
    found = []
    for searched in (supernet, replace(supernet)):
        torch.manual_seed(len(found))
        module = space.build(architecture)
        before = path.stat().st_mtime_ns
        assert searched.prepare(space, digits, seed=5) == path
        assert path.stat().st_mtime_ns == before
        found.append(searched.adopt(module, space, architecture, digits, encoding, seed=5))
    assert found[0].accuracy_fp32 == found[1].accuracy_fp32
    assert found[0].accuracy_fp32 > 0.3
    assert found[0].epochs_run == 0


def test_a_candidate_is_trained_on_from_its_shared_weights(tmp_path, digits):
    space = tiny(depths=(1,), blocks=("mbconv",))
    supernet = recipe(tmp_path, passes=2, batch_size=32)
    supernet.prepare(space, digits, seed=0)
    architecture = space.sandwich(np.random.default_rng(0), 0)[0]
    encoding = digits.preprocessing(*space.input_size(architecture))

    def scored(**settings):
        module = space.build(architecture)
        result = replace(supernet, **settings).adopt(module, space, architecture, digits, encoding, seed=0)
        return result, module.state_dict()

    (cut_out, weights), (tuned, others) = scored(), scored(finetune_epochs=2, finetune_rate=0.004)
    assert (cut_out.epochs_run, tuned.epochs_run) == (0, 2)
    assert tuned.accuracy_fp32 > cut_out.accuracy_fp32
    assert any(not torch.equal(weights[name], others[name]) for name in weights)
    # A rate that ruins the network, so what it had is kept.
    ruined, kept = scored(finetune_epochs=1, finetune_rate=100.0)
    assert (ruined.accuracy_fp32, ruined.epochs_run, ruined.best_epoch) == (cut_out.accuracy_fp32, 1, 0)
    assert all(torch.equal(weights[name], kept[name]) for name in weights)
    assert len({one.key for one in (supernet, replace(supernet, finetune_epochs=2))}) == 2
    assert replace(supernet, finetune_rate=0.5).key == supernet.key
    assert replace(supernet, finetune_epochs=2).path(space, digits, 0) == supernet.path(space, digits, 0)
    with pytest.raises(ConfigError, match="finetune_epochs=-1; expected 0 or more"):
        replace(supernet, finetune_epochs=-1)


def test_a_training_that_was_cut_goes_on_to_the_same_weights(tmp_path, digits):
    space, whole = tiny(depths=(1,), blocks=("mbconv",)), recipe(tmp_path, batch_size=256)
    straight = SupernetTraining(whole.recipe, space, digits, whole._resized, seed=3)
    straight.run(tmp_path / "straight.safetensors")
    begun = SupernetTraining(whole.recipe, space, digits, whole._resized, seed=3)
    begun.history.append(begun._pass())
    begun._keep(tmp_path / "net.safetensors")
    assert not begun.finished
    architecture = space.sample(np.random.default_rng(0))
    module, encoding = space.build(architecture), digits.preprocessing(8, 8)
    with pytest.raises(ModelFileError, match="not trained to its end"):
        whole.adopt(module, space, architecture, digits, encoding, seed=3)
    again = SupernetTraining(whole.recipe, space, digits, whole._resized, seed=4)
    again.go_on(tmp_path / "net.safetensors")
    again.run(tmp_path / "net.safetensors")
    assert [one["loss"] for one in again.history] == [one["loss"] for one in straight.history]
    for name, tensor in straight.shared.tensors.items():
        assert torch.equal(tensor, again.shared.tensors[name]), name


def test_a_file_of_another_recipe_or_space_is_refused(tmp_path, digits):
    space = tiny(depths=(1,), blocks=("mbconv",))
    settings = {"batch_size": 1024, "passes": 1, "warmup_passes": 0.0}
    path = recipe(tmp_path, **settings).prepare(space, digits, seed=0)
    with pytest.raises(ConfigError, match=r"trained with accuracy\.passes=1"):
        recipe(tmp_path, **{**settings, "passes": 2}).prepare(space, digits, seed=0)
    with pytest.raises(ModelFileError, match="another space"):
        recipe(tmp_path, **settings).prepare(tiny(), digits, seed=0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelFileError, match="cannot be read"):
        recipe(tmp_path, **settings).prepare(space, digits, seed=0)


def test_shared_weights_of_transformers_learn_and_serve(tmp_path, digits):
    space = tokens(patches=(2,), activations=("gelu",), norms=("layernorm",), poolings=("mean",), kv_heads=(1,))
    supernet = recipe(tmp_path, passes=6, batch_size=32, learning_rate=0.004)
    path = supernet.prepare(space, digits, seed=0)
    with safe_open(path, "pt") as file:
        history = json.loads(file.metadata()["facts"])["history"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["others_loss"] < history[0]["others_loss"]
    encoding = digits.preprocessing(8, 8)
    for architecture in space.sandwich(np.random.default_rng(0), 0):
        found = supernet.adopt(space.build(architecture), space, architecture, digits, encoding, seed=0)
        assert found.accuracy_fp32 > 0.2


def test_without_a_file_the_name_tells_space_recipe_and_seed(digits):
    space, supernet = tiny(), Supernet(folder="there")
    path = supernet.path(space, digits, 0)
    assert path.parent.name == "there"
    others = [supernet.path(tiny(depths=(1,)), digits, 0), supernet.path(space, digits, 1)]
    others.append(Supernet(folder="there", passes=3).path(space, digits, 0))
    assert len({path, *others}) == 4


def test_what_cannot_share_is_refused(digits):
    with pytest.raises(ConfigError, match="'toy' shares no weights"):
        sharing(Toy(TASK, (8,)))
    with pytest.raises(ConfigError, match="trains no Linear"):
        Supernet().train(nn.Linear(2, 2), digits, digits.preprocessing(8, 8), 0)
    for wrong in ({"passes": 0}, {"subnetworks": -1}, {"warmup_passes": 40.0}, {"recalibration_images": 0}):
        with pytest.raises(ConfigError, match=f"accuracy.{next(iter(wrong))}="):
            Supernet(**wrong)
