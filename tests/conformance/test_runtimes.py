"""All runtimes of the package pass the suite that the package ships."""

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
