"""The ONNX backend's own node tests of every operator that the native runtime declares: passed, or refused by name."""

from __future__ import annotations

import importlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from onnx.backend.test.case import node as package

from nas.errors import ModelFileError
from nas.runtime.native import NativeRuntime
from nas.runtime.plan.model import known_operators

FOLDER = Path(package.__file__).parent


def cases() -> list[Any]:
    """Return the node tests of declared operators; importing only their modules is quick."""
    declared = set(known_operators())
    for file in sorted(FOLDER.glob("*.py")):
        if declared & set(re.findall(r"make_node\(\s*\"(\w+)\"", file.read_text(encoding="utf-8"))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(f"{package.__name__}.{file.stem}")
    collected = package._NodeTestCases  # type: ignore[attr-defined]
    return [case for case in collected if {node.op_type for node in case.model.graph.node} <= declared]


def optional_outputs(model: ModelProto) -> bool:
    """Return whether the model's node, its only one, gives more than one output and need not."""
    (node, *others) = model.graph.node
    if others or len(node.output) < 2:
        return False
    formal = onnx.defs.get_schema(node.op_type, model.opset_import[0].version, node.domain).outputs
    return len(formal) > 1 and all(
        output.option == onnx.defs.OpSchema.FormalParameterOption.Optional for output in formal[1:]
    )


def forms(model: ModelProto, inputs: list[Any]) -> Iterator[tuple[ModelProto, list[Any]]]:
    """Yield the model with what it reads: as it is, then with all inputs but one as constants, as networks have them.

    Outputs that a network may leave out are left out in the latter.
    """
    yield model, inputs
    for free in range(len(inputs)):
        frozen = ModelProto()
        frozen.CopyFrom(model)
        del frozen.graph.input[:]
        frozen.graph.input.append(model.graph.input[free])
        for index, (value, array) in enumerate(zip(model.graph.input, inputs, strict=True)):
            if index != free:
                frozen.graph.initializer.append(numpy_helper.from_array(array, value.name))
        if optional_outputs(model):
            del frozen.graph.output[1:]
            del frozen.graph.node[0].output[1:]
        yield frozen, [inputs[free]]


def attempt(model: ModelProto, inputs: list[Any], path: Path) -> list[Any]:
    """Run a test in the first form that is taken.

    Raises:
        ModelFileError: all were refused; that of the first form.
    """
    first: ModelFileError | None = None
    for form, given in forms(model, inputs):
        onnx.save(form, path)
        try:
            session = NativeRuntime().load(path)
        except ModelFileError as error:
            first = first or error
        else:
            return session.run({value.name: array for value, array in zip(form.graph.input, given, strict=True)})
    assert first is not None
    raise first


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Counter[str]]:
    """Run all tests: name to why it failed or was refused (nothing if it passed), and how many passed per operator."""
    path = tmp_path_factory.mktemp("nodes") / "node.onnx"
    found: dict[str, str] = {}
    passed: Counter[str] = Counter()
    for case in cases():
        (inputs, expected), *_ = case.data_sets
        # A sequence or an optional is no tensor, and numpy has no 4-bit numbers or floats of 8 bits.
        if not all(isinstance(value, np.ndarray | np.generic) for value in [*inputs, *expected]):
            found[case.name] = "refused: no tensors"
            continue
        try:
            ours = attempt(case.model, [np.asarray(value) for value in inputs], path)
        except ModelFileError as error:
            found[case.name] = f"refused: {error}"
            continue
        wrong = [
            f"output {index} is off"
            for index, (mine, theirs) in enumerate(zip(ours, expected, strict=False))
            if mine.shape != theirs.shape
            or mine.dtype != theirs.dtype
            or not np.allclose(mine, theirs, case.rtol, case.atol, equal_nan=True)
        ]
        found[case.name] = "; ".join(wrong)
        if not wrong:
            passed[case.model.graph.node[0].op_type] += 1
    return found, passed


def test_every_declared_operator_passes_its_node_tests(
    outcomes: tuple[dict[str, str], Counter[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    found, passed = outcomes
    refused = {name: why for name, why in found.items() if why.startswith("refused: ")}
    failed = {name: why for name, why in found.items() if why and name not in refused}
    with capsys.disabled():
        print(f"\nONNX node tests: {len(found) - len(refused)} ran, {len(refused)} refused, {len(failed)} failed")
        print(f"passed per operator: {dict(sorted(passed.items()))}")
    assert not failed
    assert sum(passed.values()) >= 150, "so many pass; fewer would mean that operators are no longer taken"


def test_what_is_refused_says_what_and_why(outcomes: tuple[dict[str, str], Counter[str]]) -> None:
    for name, why in outcomes[0].items():
        if why.startswith("refused: ") and "no tensors" not in why:
            assert re.search(r"node '|input '|operator '|a tensor has a size of 0", why), f"{name}: {why}"
