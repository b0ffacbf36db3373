"""All runtimes of the package pass the suite that the package ships."""

import pytest

from nas.measure.scheduled import ScheduledRuntime
from nas.protocols import Runtime
from nas.runtime.native import NativeRuntime
from nas.runtime.onnx_runtime import OnnxRuntime
from nas.testing.runtime_suite import RuntimeSuite


class TestOnnxRuntime(RuntimeSuite):
    def make_runtime(self) -> Runtime:
        return OnnxRuntime()


class TestOnnxRuntimeWithoutSpinning(RuntimeSuite):
    def make_runtime(self) -> Runtime:
        return OnnxRuntime(spinning=False)


class TestNativeRuntime(RuntimeSuite):
    float16 = False  # refused: no kernel computes in half precision on x86

    def make_runtime(self) -> Runtime:
        return NativeRuntime()


class TestNativeRuntimePortable(RuntimeSuite):
    float16 = False

    def make_runtime(self) -> Runtime:
        return NativeRuntime(isa="portable")


class TestScheduledRuntime(RuntimeSuite):
    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.cache = tmp_path_factory.mktemp("decisions") / "here.json"

    def make_runtime(self) -> Runtime:
        return ScheduledRuntime(rounds=5, cache=str(self.cache))
