"""ONNX Runtime's profile, options and errors beyond what the conformance suite asks."""

import numpy as np
import pytest

from nas.errors import CandidateError, MeasurementError
from nas.runtime.inputs import random_inputs
from nas.runtime.onnx_runtime import PROFILE_WARMUP_RUNS, OnnxRuntime, operator_times
from nas.testing.runtime_suite import write_dense, write_tokens


def event(name, duration, kind="Conv", **arguments):
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "dur": duration,
        "args": {"op_name": kind, "output_type_shape": [{"float": [1, 8, 4, 4]}], **arguments},
    }


def test_the_profile_takes_medians_of_the_last_runs():
    events = [event("a", duration) for duration in (900, 900, 10, 30, 20)]
    events += [event("b", duration, "Relu") for duration in (900, 900, 5, 5, 5000)]
    events += [{"cat": "Session", "name": "model_run", "dur": 99}, {"cat": "Node", "name": "a_fence_before", "dur": 1}]
    first, second = operator_times(events, runs=3)
    assert (first.name, first.kind, first.median_us, first.share) == ("a", "Conv", 20, 0.8)
    assert (second.name, second.median_us, second.share) == ("b", 5, 0.2)
    assert (first.output_shape, first.dtype) == ((1, 8, 4, 4), "float")


def test_operators_below_the_clocks_grain_share_alike():
    found = operator_times([event("a", 0), event("b", 0, output_type_shape=[])], runs=1)
    assert [operator.share for operator in found] == [0.5, 0.5]
    assert found[1].output_shape == ()


def test_a_profile_without_operators_is_an_error():
    with pytest.raises(MeasurementError, match="no operator"):
        operator_times([{"cat": "Session", "name": "model_run", "dur": 1}], runs=1)


def test_the_profile_names_the_files_nodes(tmp_path):
    write_dense(tmp_path / "m.onnx", np.ones((8, 8), np.float32))
    found = OnnxRuntime().profile(tmp_path / "m.onnx", runs=3)
    assert {operator.name for operator in found} == {"/dense/MatMul", "/dense/Relu"}
    assert {operator.kind for operator in found} == {"MatMul", "Relu"}
    assert all(operator.output_shape == (1, 8) for operator in found)
    assert PROFILE_WARMUP_RUNS > 0
    with pytest.raises(MeasurementError, match="0 runs"):
        OnnxRuntime().profile(tmp_path / "m.onnx", runs=0)


def test_random_inputs_fit_any_model(tmp_path):
    write_tokens(tmp_path / "m.onnx", np.ones((5, 3), np.float32))
    session = OnnxRuntime().load(tmp_path / "m.onnx")
    inputs = random_inputs(session.inputs)
    assert {name: (value.shape, value.dtype.name) for name, value in inputs.items()} == {
        "tokens": ((1, 1), "int64"),
        "mask": ((1, 1), "bool"),
        "scale": ((1,), "float32"),
    }
    session.run(inputs)
    with pytest.raises(MeasurementError, match="'text' has type string"):
        random_inputs({"text": ((1,), "string")})


def test_spinning_is_off_where_threads_share_the_machine():
    key = "session.intra_op.allow_spinning"
    options = OnnxRuntime().session_options
    assert [options(threads).get_session_config_entry(key) for threads in (1, 2)] == ["1", "0"]
    assert OnnxRuntime(spinning=True).session_options(4).get_session_config_entry(key) == "1"


def test_inputs_that_do_not_fit_are_the_candidates_error(tmp_path, capfd):
    write_dense(tmp_path / "m.onnx", np.ones((8, 8), np.float32))
    session = OnnxRuntime().load(tmp_path / "m.onnx")
    with pytest.raises(CandidateError) as failure:
        session.run({"input": np.ones((1, 9), np.float32)})
    assert failure.value.kind == "error"
    assert "m.onnx" in failure.value.reason
    assert capfd.readouterr().err == ""
