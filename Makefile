# make search [ARGS="data=cifar10 data.path=..."]   install, compile and search
# make test   [ARGS="-k store"]                      install with the tools of tests and run them
# make bench-kernels [ARGS="vit_tiny"]              compare our kernels with ONNX Runtime, see CONTRIBUTING.md
# make nasq-run                                     build/nasq-run-x86_64; make nasq-run-aarch64 for Arm
# make lint | lock | wheel | clean | help
PYTHON ?= python3
ARGS ?=
# Test files run side by side; a file's own tests stay in order in one process.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
# Only errors: on some machines pip warns about every package.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# --no-compile saves most of a minute: only what is imported gets compiled to bytecode, at its first import.
INSTALL := $(PIP) install --root-user-action=ignore --no-compile --constraint constraints.txt --build-constraint constraints.txt
# A stamp per set of extras; what is newer than a stamp makes its installation run again.
LOCKED := pyproject.toml constraints.txt
KERNELS := $(shell find kernels -name '*.cc' -o -name '*.h' -o -name CMakeLists.txt -o -name sources.txt)
say = @echo "hwnas: $(1)" >&2

.PHONY: help search test lint lock wheel clean kernels-test-x86_64 kernels-test-aarch64 kernels-test-sanitized kernels-test-threads kernels-test-runner-x86_64 kernels-test-runner-aarch64 kernels-fuzz nasq-run nasq-run-x86_64 nasq-run-aarch64 bench-kernels bench-products
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@sed -n 's/^# make/make/p' Makefile

search: $(VENV)/.installed
	@$(BIN)/nas search $(ARGS)

test: $(VENV)/.installed-dev
	@scripts/install_test_tools.sh
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@$(BIN)/lint-imports --no-logo

lock:
	@scripts/check_python.sh $(PYTHON)
	$(call say,resolving the newest versions; this takes minutes)
	@scripts/lock.sh $(PYTHON)

# Programs of C++ alone: the tests of the kernels for this machine and, to be run by QEMU, for ARM.
KERNEL_TESTS := $(patsubst kernels/%,%,$(wildcard kernels/src/*/test.cc) kernels/tests/main.cc) src/execute/threads.cc
CXX_aarch64 := aarch64-linux-gnu-g++
kernels-test-x86_64:
	@kernels/tools/build.sh build/$@ "$(CXX)" "-fno-exceptions" $(KERNEL_TESTS)
kernels-test-aarch64:
	@kernels/tools/build.sh build/$@ "$(CXX_aarch64)" "-fno-exceptions -static" $(KERNEL_TESTS)
SANITIZED := -O1 -g1 -fno-exceptions -fsanitize=address,undefined -fno-sanitize-recover
kernels-test-sanitized:
	@OBJECTS=build/sanitized.objects kernels/tools/build.sh build/$@ "$(CXX)" "$(SANITIZED)" $(KERNEL_TESTS)
kernels-test-threads:
	@kernels/tools/build.sh build/$@ "$(CXX)" "-O1 -g1 -fsanitize=thread" $(KERNEL_TESTS)

# One static file that loads and times a planned model, for machines without Python. It brings its own start, so the C
# library's half megabyte stays out; what a distribution's compiler adds on its own (checks of the stack, of buffers) would
# ask for that library.
RUNNER := $(patsubst kernels/%,%,$(wildcard kernels/runner/*.cc))
SMALL := -O2 -fno-exceptions -fno-rtti -fno-asynchronous-unwind-tables -fno-threadsafe-statics -ffunction-sections -fdata-sections \
  -fno-pie -no-pie -fno-stack-protector -U_FORTIFY_SOURCE
SMALL_LINK := -static -nostdlib -s -Wl,--gc-sections -Wl,-z,noexecstack -Wl,--build-id=none
nasq-run: nasq-run-x86_64
nasq-run-x86_64:
	@LINK="$(SMALL_LINK)" LIBRARIES=-lgcc kernels/tools/build.sh build/$@ "$(CXX)" "$(SMALL) -fcf-protection=none" $(RUNNER)
	@ls -l build/$@
nasq-run-aarch64:
	@LINK="$(SMALL_LINK)" LIBRARIES=-lgcc kernels/tools/build.sh build/$@ "$(CXX_aarch64)" "$(SMALL) -mno-outline-atomics" $(RUNNER)
	@ls -l build/$@

# What stands in for the C library there, tested without one: few files, so no objects are kept.
RUNNER_TEST := $(addprefix kernels/,$(filter-out runner/nasq_run.cc,$(RUNNER)) tests/runner.cc src/cpu/features.cc)
kernels-test-runner-x86_64:
	@mkdir -p build
	@$(CXX) -std=c++17 -O1 -Wall -Wextra -Werror -Wno-psabi $(SMALL) -fcf-protection=none -Ikernels/include $(SMALL_LINK) $(RUNNER_TEST) -lgcc -o build/$@
kernels-test-runner-aarch64:
	@mkdir -p build
	@$(CXX_aarch64) -std=c++17 -O1 -Wall -Wextra -Werror -Wno-psabi $(SMALL) -mno-outline-atomics -Ikernels/include $(SMALL_LINK) $(RUNNER_TEST) -lgcc -o build/$@

# Damages planned models under AddressSanitizer and UBSan: build/kernels-fuzz SECONDS SEED MODEL.nasq...
kernels-fuzz:
	@OBJECTS=build/sanitized.objects kernels/tools/build.sh build/$@ "$(CXX)" "$(SANITIZED)" src/plan/fuzz.cc

# The native runtime against ONNX Runtime and, after "pip install hwnas[bench]", OpenVINO; see scripts/bench_kernels.py.
bench-kernels: $(VENV)/.installed-dev
	@$(BIN)/python scripts/bench_kernels.py $(ARGS)

# GMAC/s of the products and microseconds of the rest, on every level that this machine has, without Python.
bench-products:
	@for part in src/gemm/bench.cc src/int4/bench.cc tests/bench_vectors.cc; do \
	  program=build/kernels-$$(echo $$part | tr / _); \
	  kernels/tools/build.sh $$program "$(CXX)" "" $$part && $$program || exit 1; done

wheel: $(VENV)/.installed-dev
	@$(PIP) wheel --no-deps --build-constraint constraints.txt --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -f nas/_kernels*.so nas/lib/*.so
	cd kernels && rm -rf .cmake CMakeCache.txt CMakeFiles CMakeInit.txt build.ninja Makefile .ninja_deps .ninja_log \
	  .skbuild-info.json cmake_install.cmake *.a

$(VENV)/.pip: constraints.txt
	@scripts/check_python.sh $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --root-user-action=ignore --constraint constraints.txt --upgrade pip
	@touch $@

$(VENV)/.installed: $(VENV)/.pip $(LOCKED) $(KERNELS)
	$(call say,installing locked packages and compiling the extension; the first time takes a minute or two)
	@$(INSTALL) --editable '.[energy]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.pip $(LOCKED) $(KERNELS)
	$(call say,installing locked packages and compiling the extension; the first time takes a minute or two)
	@$(INSTALL) --editable '.[energy,dev]'
	@touch $(VENV)/.installed $@
