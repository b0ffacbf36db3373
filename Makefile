# make search [ARGS="data=cifar10 data.path=..."]   install, compile and search
# make test   [ARGS="-k store"]                      install with the tools of tests and run them
# make lint | lock | wheel | clean | help
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Only errors: on some machines pip warns about every package.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# --no-compile saves most of a minute: only what is imported gets compiled to bytecode, at its first import.
INSTALL := $(PIP) install --root-user-action=ignore --no-compile --constraint constraints.txt --build-constraint constraints.txt
# A stamp per set of extras; what is newer than a stamp makes its installation run again.
LOCKED := pyproject.toml constraints.txt
KERNELS := $(shell find kernels -name '*.cc' -o -name '*.h' -o -name CMakeLists.txt)
say = @echo "hwnas: $(1)" >&2

.PHONY: help search test lint lock wheel clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@sed -n 's/^# make/make/p' Makefile

search: $(VENV)/.installed
	@$(BIN)/nas search $(ARGS)

test: $(VENV)/.installed-dev
	@scripts/install_test_tools.sh
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@$(BIN)/lint-imports --no-logo

lock:
	@scripts/check_python.sh $(PYTHON)
	$(call say,resolving the newest versions; this takes minutes)
	@scripts/lock.sh $(PYTHON)

wheel: $(VENV)/.installed-dev
	@$(PIP) wheel --no-deps --build-constraint constraints.txt --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -f nas/_kernels*.so
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
