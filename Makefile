# make help lists what there is. Needs Python 3.11 or newer and make, nothing else.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := build/installed
# Two processes: most of a first run is compiling. A test may take 4 GB.
PARALLEL := -n 2 --dist loadfile
SOURCES := $(shell find edgeqwen quant cli -name '*.py') pyproject.toml

# The first of these that is 3.11 or newer; make PYTHON=/path/to/python takes another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: help chat test test-peers test-arm64 test-x86 test-x86-emulated lint format types contracts bench wheel clean

help:
	@echo "make chat       talk to the built-in model, or to another: make chat MODEL=model.gguf"
	@echo "make test       run the tests (ARGS='-k name' chooses some)"
	@echo "make test-peers  compare with transformers and llama.cpp (installs and builds them first)"
	@echo "make test-arm64  test the kernels for 64-bit ARM, with and without dot products (QEMU)"
	@echo "make test-x86   test the kernels for x86 with AVX-VNNI, with AVX2, and without AVX"
	@echo "make bench      measure the speed of the built-in model, or of another: MODEL=model.gguf"
	@echo "make lint       ruff; make format mends what it can"
	@echo "make types      mypy on the installed package"
	@echo "make contracts  which package may import which"
	@echo "make wheel      build dist/*.whl and dist/*.tar.gz"
	@echo "make clean      remove the environment and everything built"

chat: $(VENV)/.runtime
	@$(BIN)/edgeqwen chat $(MODEL)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# Minutes of building, gigabytes of torch: for a change to the network, the formats or the converter.
test-peers: $(VENV)/.peers
	$(BIN)/python -m pytest -m 'peers or slow' $(ARGS)

# Another CPU's kernels, emulated; fetches QEMU and a Python for it into build/ (0.8 GB) with apt.
test-arm64: $(VENV)/.test
	@$(BIN)/python -m tools.other_cpus arm64 $(ARGS)

# LLVM compiles for lesser CPUs; test-x86-emulated proves that these have all the instructions.
test-x86: $(VENV)/.test
	@$(BIN)/python -m tools.other_cpus x86 $(ARGS)

test-x86-emulated: $(VENV)/.test
	@$(BIN)/python -m tools.other_cpus x86-emulated $(ARGS)

bench: $(VENV)/.runtime
	$(BIN)/edgeqwen bench $(MODEL)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The packages are mapped from three folders (pyproject.toml), which neither mypy nor import-linter
# can follow: both look at the package as a wheel installs it.
types: $(INSTALLED)/.stamp
	cd $(INSTALLED) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p edgeqwen

contracts: $(INSTALLED)/.stamp
	cd $(INSTALLED) && $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/.importlinter --no-cache

wheel: $(VENV)/.lint
	rm -rf build/lib dist
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED)/.stamp: $(VENV)/.lint $(SOURCES)
	@rm -rf build/lib $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target $(INSTALLED) .
	@touch $@

# Standard input belongs to the program that is started in the end, not to pip.
$(VENV)/.python:
	@test -n "$(PYTHON)" || { \
		echo "edgeqwen needs Python 3.11 or newer, and found none: install it, or say" >&2; \
		echo "make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) can't create environments: its venv package is missing." >&2; \
		echo "On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@echo "creating $(VENV) ..."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) </dev/null
	@touch $@

$(VENV)/.runtime: $(VENV)/.python pyproject.toml
	@echo "installing edgeqwen (the first time takes a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . </dev/null
	@touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml
	@echo "installing edgeqwen and what its tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]" </dev/null
	@touch $@ $(VENV)/.runtime

$(VENV)/.peers: $(VENV)/.test
	@echo "installing torch and transformers, building llama.cpp (some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,peers]" </dev/null
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@echo "installing ruff, mypy, import-linter ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,lint]" </dev/null
	@touch $@
