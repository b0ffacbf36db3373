"""What every custom operator must do, as tests to inherit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from nas.runtime.custom_op import Arrays, CustomOp, Example
from nas.runtime.custom_ops import open_session, with_functions

_OPSET, _IR_VERSION = 17, 8


class CustomOpSuite:
    """Subclass it as ``TestMyOp`` and return the operator from ``make_op``, registered if it has a library.

    Attributes:
        examples: how many calls are compared.
    """

    examples: int = 20

    def make_op(self) -> CustomOp:
        """Return the operator under test."""
        raise NotImplementedError

    def test_equals_its_reference(self) -> None:
        """Every example, in a session of its own."""
        op = self.make_op()
        for seed in range(self.examples):
            example = op.examples(np.random.default_rng(seed))
            expected = op.reference(example.inputs, example.attributes)
            self._same(op, run_node(op, example, expected), expected)

    def test_examples_follow_from_the_seed(self) -> None:
        """A failure can be looked at again."""
        op = self.make_op()
        one, two, other = (op.examples(np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert _bytes(one.inputs) == _bytes(two.inputs)
        assert _bytes(one.inputs) != _bytes(other.inputs)

    def test_inputs_are_left_as_they_were(self) -> None:
        """Other nodes may read them."""
        op = self.make_op()
        example = op.examples(np.random.default_rng(0))
        before = _bytes(example.inputs)
        run_node(op, example, op.reference(example.inputs, example.attributes))
        assert _bytes(example.inputs) == before

    def test_one_session_serves_many_threads(self) -> None:
        """Eight threads at once, each with values of its own."""
        op = self.make_op()
        first = op.examples(np.random.default_rng(0))
        inputs = [[_shuffled(array, seed) for array in first.inputs] for seed in range(8)]
        expected = [op.reference(given, first.attributes) for given in inputs]
        session = open_session(node_model(op, first, expected[0]))
        names = [value.name for value in session.get_inputs()]

        def run(index: int) -> Arrays:
            return list(session.run(None, dict(zip(names, inputs[index % 8], strict=True))))

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(run, range(64)))
        for index, result in enumerate(results):
            self._same(op, result, expected[index % 8])

    def _same(self, op: CustomOp, result: Arrays, expected: Arrays) -> None:
        assert len(result) == len(expected)
        for given, wanted in zip(result, expected, strict=True):
            assert given.dtype == wanted.dtype
            assert given.shape == wanted.shape
            if op.tolerance == 0:
                assert given.tobytes() == wanted.tobytes()
            else:
                difference = np.abs(given.astype(np.float64) - wanted.astype(np.float64))
                assert float(difference.max(initial=0)) <= op.tolerance


def node_model(op: CustomOp, example: Example, expected: Arrays) -> onnx.ModelProto:
    """Return a model of the one node, all sizes free.

    Args:
        op: a registered operator, or one with a function.
        example: gives the attributes and what the node takes.
        expected: what it gives.
    """
    inputs, outputs = _values("x", example.inputs), _values("y", expected)
    names = [value.name for value in inputs], [value.name for value in outputs]
    node = helper.make_node(op.name, *names, op.name, domain=op.domain, **example.attributes)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(op.domain, 1)]
    graph = helper.make_graph([node], "suite", inputs, outputs)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    if op.library is None and op.function is not None:
        model.functions.append(op.function)
    return with_functions(model)


def run_node(op: CustomOp, example: Example, expected: Arrays) -> Arrays:
    """Return what ONNX Runtime makes of an example."""
    session = open_session(node_model(op, example, expected))
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, example.inputs, strict=True))))


def _values(letter: str, arrays: Arrays) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            f"{letter}{index}",
            helper.np_dtype_to_tensor_dtype(array.dtype),
            [f"{letter}{index}_{axis}" for axis in range(array.ndim)],
        )
        for index, array in enumerate(arrays)
    ]


def _shuffled(array: NDArray[np.generic], seed: int) -> NDArray[np.generic]:
    flat = array.reshape(-1).copy()
    np.random.default_rng(seed).shuffle(flat)
    return flat.reshape(array.shape)


def _bytes(arrays: Arrays) -> list[bytes]:
    return [array.tobytes() for array in arrays]
