"""What every search space must do, as tests to inherit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nas.architecture import Architecture, Choice
from nas.data import Task
from nas.errors import DegenerateArchitectureError
from nas.graph import GRAPH_INPUT, WEIGHT_KINDS, Graph, Op
from nas.protocols import SearchSpace, Suggester
from nas.suggest import RandomSuggester

_TORCHLESS = """
import importlib, json, sys
import numpy as np
job = json.loads(sys.argv[1])
from nas.architecture import Architecture
from nas.data import Task
space = getattr(importlib.import_module(job["module"]), job["name"])(Task(**job["task"]), **job["arguments"])
graph = space.lower(Architecture.from_dict(job["architecture"]))
space.mutate(space.sample(np.random.default_rng(0)), np.random.default_rng(0))
print(json.dumps({"torch": "torch" in sys.modules, "macs": graph.macs}))
"""


class SpaceSuite:
    """Subclass it as ``TestMySpace`` with the attributes below.

    Attributes:
        space_class: the class; called as ``space_class(task, **arguments)``.
        task: for which networks are made.
        arguments: further arguments, JSON-ready, among them at least one list that allows a degenerate choice.
        small: arguments of an instance small enough to enumerate, for the exact size; None to skip that.
        architectures: how many random ones each test draws.
        seed: of the draws.
        tolerance: largest difference allowed between torch's and the runtime's logits, relative to the largest logit
            or to 1, whichever is larger.
    """

    space_class: type[Any]
    task: Task = Task("image_classification", channels=3, classes=10)
    arguments: Mapping[str, Any] = {}
    small: Mapping[str, Any] | None = None
    architectures: int = 3
    seed: int = 0
    tolerance: float = 1e-4

    def make_trial(self) -> Suggester:
        """Return a suggester of the sampler that the search uses, such as ``optuna.create_study().ask()``."""
        raise NotImplementedError

    def make_degenerate(self) -> Architecture:
        """Return an architecture of this space that makes no sense."""
        raise NotImplementedError

    def space(self) -> SearchSpace:
        """Return the space under test."""
        made: SearchSpace = self.space_class(self.task, **self.arguments)
        return made

    def drawn(self) -> Iterator[tuple[SearchSpace, Architecture]]:
        """Yield random architectures, each with its space."""
        space, rng = self.space(), np.random.default_rng(self.seed)
        for _ in range(self.architectures):
            yield space, space.sample(rng)

    def test_satisfies_the_protocol(self) -> None:
        """The class has every member of SearchSpace."""
        assert isinstance(self.space(), SearchSpace)

    def test_id_survives_json(self) -> None:
        """An architecture that went through JSON has the same id and passes the check."""
        for space, architecture in self.drawn():
            again = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
            assert again.id == architecture.id
            assert again == architecture
            space.check(again)

    def test_sample_repeats_with_its_seed(self) -> None:
        """The same generator state draws the same architectures, and they are not all one."""
        first = [architecture.id for _, architecture in self.drawn()]
        assert first == [architecture.id for _, architecture in self.drawn()]
        space, rng = self.space(), np.random.default_rng(self.seed)
        assert len({space.sample(rng).id for _ in range(20)}) > 1

    def test_sample_is_never_degenerate(self) -> None:
        """Fifty samples pass the check."""
        space, rng = self.space(), np.random.default_rng(self.seed)
        for _ in range(50):
            space.check(space.sample(rng))

    def test_suggest_works_with_a_trial(self) -> None:
        """Trials of the real sampler give architectures that pass the check, or are refused as degenerate."""
        space, made = self.space(), 0
        for _ in range(20):
            try:
                architecture = space.suggest(self.make_trial())
            except DegenerateArchitectureError:
                continue
            space.check(architecture)
            made += 1
        assert made > 0

    def test_a_gene_has_one_list_of_options(self) -> None:
        """A name is never asked with different options, which Optuna refuses."""
        space, rng = self.space(), np.random.default_rng(self.seed)
        seen: dict[str, tuple[Choice, ...]] = {}
        for _ in range(50):
            suggester = RandomSuggester(rng)
            try:
                space.suggest(suggester)
            except DegenerateArchitectureError:
                continue
            for name, options in suggester.options.items():
                assert seen.setdefault(name, options) == options

    def test_mutate_makes_one_edit(self) -> None:
        """A neighbour differs in exactly one gene that both have, passes the check, and is another network.

        ``precision`` among the choices stands for the precision of the whole network, so that its edit changes every
        block's.
        """
        rng = np.random.default_rng(self.seed)
        for space, architecture in self.drawn():
            current = architecture
            for _ in range(10):
                neighbour = space.mutate(current, rng)
                space.check(neighbour)
                choices = _differences(current.choices, neighbour.choices)
                precisions = _differences(current.precision, neighbour.precision)
                assert neighbour.id != current.id
                if choices == ["precision"]:
                    precisions = []
                assert len(choices) + len(precisions) == 1, (choices, precisions)
                current = neighbour

    def test_degenerate_is_refused_with_a_reason(self) -> None:
        """Check, build and lower refuse before anything is built."""
        space, architecture = self.space(), self.make_degenerate()
        for refuse in (space.check, space.build, space.lower):
            assert len(_refusal(refuse, architecture)) > 20

    def test_foreign_and_altered_are_refused(self) -> None:
        """Another space's architecture, an unknown gene and a missing one do not pass the check."""
        for space, architecture in self.drawn():
            name, *_ = architecture.choices
            fewer = {key: value for key, value in architecture.choices.items() if key != name}
            altered = (
                Architecture("elsewhere", architecture.choices, architecture.precision),
                Architecture(architecture.space, {**architecture.choices, "surplus": 1}, architecture.precision),
                Architecture(architecture.space, fewer, architecture.precision),
                Architecture(architecture.space, {**architecture.choices, name: "odd"}, architecture.precision),
            )
            for wrong in altered:
                assert _refusal(space.check, wrong)

    def test_size_is_exact(self) -> None:
        """The formula equals the number of distinct architectures of a small instance, degenerate ones included."""
        assert self.space().size() > 0
        if self.small is None:
            return
        small = self.space_class(self.task, **self.small)
        ids = [architecture.id for architecture in small.every()]
        assert len(set(ids)) == len(ids) == small.size() > 1

    def test_trains(self) -> None:
        """Logits are (batch, classes), of a language model (batch, tokens, classes); all weights get gradients."""
        import torch

        torch.set_num_threads(1)
        for space, architecture in self.drawn():
            torch.manual_seed(0)
            module = space.build(architecture).train()
            inputs = self._inputs(space, architecture, 4)
            logits = module(inputs)
            assert logits.shape == (*(inputs.shape if self._speaks else (4,)), self.task.classes)
            rows = logits.flatten(0, -2)
            loss: Any = torch.nn.functional.cross_entropy(rows, torch.arange(len(rows)) % self.task.classes)
            loss.backward()
            for name, parameter in module.named_parameters():
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name

    def test_weights_repeat_with_the_seed(self) -> None:
        """Fresh weights are a function of torch's seed."""
        import torch

        for space, architecture in self.drawn():
            torch.manual_seed(1)
            first = space.build(architecture).state_dict()
            torch.manual_seed(1)
            again = space.build(architecture).state_dict()
            torch.manual_seed(2)
            other = space.build(architecture).state_dict()
            assert all(torch.equal(first[name], again[name]) for name in first)
            assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_children_are_the_blocks(self) -> None:
        """The precision genes name the built module's children, and every op belongs to one."""
        for space, architecture in self.drawn():
            children = [name for name, _ in space.build(architecture).named_children()]
            assert set(children) == set(architecture.precision)
            graph = space.lower(architecture)
            assert {op.block for op in graph.ops} <= set(children)
            for op in graph.ops:
                assert op.dtype == architecture.precision[op.block]

    def test_lowered_graph_is_a_dag(self) -> None:
        """Every op reads the input or ops before it, with the shapes that they wrote, and but one result is unread."""
        for space, architecture in self.drawn():
            graph = space.lower(architecture)
            written = {GRAPH_INPUT: graph.input_shape}
            for op in graph.ops:
                assert op.name not in written
                for source, shape in zip(op.inputs, op.input_shapes, strict=True):
                    assert source in written
                    assert _is_split(graph, source) or written[source] == shape
                written[op.name] = op.output_shape
            unread = set(written) - {source for op in graph.ops for source in op.inputs}
            assert unread == {graph.ops[-1].name}
            shape = graph.ops[-1].output_shape
            assert (shape[0], shape[-1], len(shape)) == (1, self.task.classes, 3 if self._speaks else 2)

    def test_lower_equals_the_exported_file(self, tmp_path: Path) -> None:
        """The lowered graph has the exported ONNX file's ops that bear multiply-accumulates, MACs and weight bytes.

        Compared, with every weight randomised first so that no two tensors are equal: the multiset of (kind, block,
        weight shapes, input shapes, output shape, MACs) over conv, gemm and matmul; total MACs; and, at fp32, the
        weight bytes of the lowered graph with those of the file's float tensors that are more than a scalar; at the
        architecture's own precisions a weight of a conv, gemm or gather takes 1 byte in int8 and half of one in int4. A
        tensor that two nodes read counts once in the lowered graph. Free axes have the sizes at which the file is timed
        first.
        """
        import onnx

        from nas.runtime.onnx_graph import graph_from_onnx
        from nas.runtime.variants import timed_variants

        for space, architecture in self.drawn():
            path = self._export(space, architecture, tmp_path)[1]
            sizes = next(iter(timed_variants(path).values()))
            lowered, exported = space.lower(architecture), graph_from_onnx(path, sizes)
            assert sorted(map(_signature, lowered.mac_ops)) == sorted(map(_signature, exported.mac_ops))
            assert lowered.macs == exported.macs > 0
            stored = [tensor for tensor in onnx.load(path).graph.initializer if tensor.data_type == 1 and tensor.dims]
            in_file = sum(4 * int(np.prod(tensor.dims)) for tensor in stored)
            assert 4 * lowered.parameters == in_file == exported.weight_bytes - _read_again(onnx.load(path).graph)
            bits_saved = sum(
                (32 - architecture.precision[op.block].weight_bits) * int(np.prod(op.weights["weight"]))
                for op in lowered.ops
                if op.kind in WEIGHT_KINDS and "weight" in op.weights
            )
            assert lowered.weight_bytes == in_file - bits_saved // 8

    def test_runtime_repeats_torch(self, tmp_path: Path) -> None:
        """ONNX Runtime's logits on a batch of 3, of a language model on one text, equal torch's."""
        import torch

        from nas.runtime.inputs import empty_inputs
        from nas.runtime.onnx_runtime import OnnxRuntime

        for space, architecture in self.drawn():
            module, path = self._export(space, architecture, tmp_path)
            inputs = self._inputs(space, architecture, 1 if self._speaks else 3)
            with torch.no_grad():
                expected = module.eval()(inputs).numpy()
            session = OnnxRuntime().load(path)
            logits, *_ = session.run({"input": inputs.numpy(), **empty_inputs(session.inputs, {"input"})})
            np.testing.assert_allclose(logits, expected, atol=self.tolerance * max(1.0, np.abs(expected).max()))

    def test_cached_tokens_repeat_the_whole(self, tmp_path: Path) -> None:
        """A language model's file, given a prompt and then token by token with its cache, says what it says at once.

        Its further outputs are the cache's next state, in the order of its further inputs. Other tasks have no cache.
        """
        import torch

        from nas.runtime.inputs import empty_inputs
        from nas.runtime.onnx_runtime import OnnxRuntime

        for space, architecture in self.drawn() if self._speaks else ():
            module, path = self._export(space, architecture, tmp_path)
            tokens = self._inputs(space, architecture, 1)
            with torch.no_grad():
                expected = module.eval()(tokens).numpy()
            session = OnnxRuntime().load(path)
            cache = empty_inputs(session.inputs, {"input"})
            assert cache
            parts, said = [tokens[:, :3], *tokens[:, 3:].split(1, dim=1)], []
            for part in parts:
                logits, *grown = session.run({"input": part.numpy(), **cache})
                cache = dict(zip(cache, grown, strict=True))
                said.append(logits)
            whole = np.concatenate(said, axis=1)
            np.testing.assert_allclose(whole, expected, atol=self.tolerance * max(1.0, np.abs(expected).max()))

    def test_imports_no_torch(self) -> None:
        """Importing the space, sampling, mutating and lowering leave torch unimported."""
        space, architecture = next(self.drawn())
        job = {
            "module": self.space_class.__module__,
            "name": self.space_class.__qualname__,
            "task": asdict(self.task),
            "arguments": dict(self.arguments),
            "architecture": architecture.to_dict(),
        }
        command = [sys.executable, "-c", _TORCHLESS, json.dumps(job)]
        # A space of a user's own may lie where only this process looks for it.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"torch": False, "macs": space.lower(architecture).macs}

    def _export(self, space: SearchSpace, architecture: Architecture, folder: Path) -> tuple[Any, Path]:
        import torch

        from nas.quantize.torch_to_onnx import export_example

        torch.manual_seed(self.seed)
        module = space.build(architecture)
        _randomise(module)
        path = folder / f"{architecture.id}.onnx"
        export_example(module, path, self._inputs(space, architecture, 1).numpy())
        return module, path

    @property
    def _speaks(self) -> bool:
        return self.task.kind == "language_model"

    def _inputs(self, space: SearchSpace, architecture: Architecture, batch: int) -> Any:
        """Return pictures of normal noise, or random tokens, as the network reads them."""
        import torch

        shape = (batch, *((self.task.channels,) if self.task.channels else ()), *space.input_size(architecture))
        return torch.randint(self.task.vocabulary, shape) if self.task.vocabulary else torch.randn(shape)


def _refusal(call: Callable[[Architecture], Any], architecture: Architecture) -> str:
    try:
        call(architecture)
    except DegenerateArchitectureError as error:
        return str(error)
    raise AssertionError(f"{call.__name__} took {architecture}")


def _differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    return [name for name in left if name in right and left[name] != right[name]]


def _is_split(graph: Graph, name: str) -> bool:
    return any(op.name == name and op.kind == "split" for op in graph.ops)


def _read_again(graph: Any) -> int:
    """Return the bytes of float tensors at each reader but the first."""
    readers = Counter(name for node in graph.node for name in node.input)
    stored = (tensor for tensor in graph.initializer if tensor.data_type == 1 and tensor.dims)
    return sum(4 * int(np.prod(tensor.dims)) * (readers[tensor.name] - 1) for tensor in stored)


def _signature(op: Op) -> str:
    weights = sorted(op.weights.values())
    return repr((op.kind, op.block, weights, op.input_shapes, op.output_shape, op.macs))


def _randomise(module: Any) -> None:
    """Give every parameter and running statistic a value of its own; fresh ones repeat zeros and ones."""
    import torch

    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(0.9).add_(torch.rand_like(tensor) * 0.1)
