# Every target sets itself up: needs python3 >= 3.10 (with venv) and, for the fast native part, a C++ compiler.
#   make restore IMAGE=photo.jpg   restore an image or a folder of images (without IMAGE: the bundled sample)
#   make test                      run the tests
#   make test-cluster              run those that need Ray, which takes 0.5 GB more
#   make lint                      ruff and mypy
#   make bench DATA=path/to/CBSD68  run the benchmarks (without DATA: those that need no photographs)
#   make clean                     remove everything that was made here, .venv included
# PYTHON=python3.12 chooses the interpreter that .venv is made with.

PYTHON ?= python3
WORKERS ?= 2
VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
INSTALL = $(PIP) install -c constraints.txt
SOURCES = $(shell find src \( -name __pycache__ -o -name '*.so' \) -prune -o -print)

.PHONY: help install restore test test-cluster lint bench clean

help:
	@sed -n 's/^#   make/make/p' Makefile

install: $(VENV)/installed

# -- setting up; each step leaves a stamp in .venv and is repeated only when what it depends on is newer ---------------

$(VENV)/created:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found; install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) is `$(PYTHON) --version 2>&1`; Python 3.10 or newer is needed. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: this Python cannot make virtual environments; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/build-tools: $(VENV)/created constraints.txt
	$(INSTALL) --quiet cmake nanobind ninja scikit-build-core
	@touch $@

# First the package alone, with the pinned build tools and a kept build folder (only changed C++ files are compiled
# again), then what it depends on.
$(VENV)/installed: $(VENV)/build-tools pyproject.toml CMakeLists.txt $(SOURCES)
	$(PIP) install --no-deps --no-build-isolation --config-settings=build-dir=$(VENV)/build/{wheel_tag} .
	$(INSTALL) serpent-ir
	@$(BIN)/python -c 'import torch, serpent_ir.ops._native' 2>/dev/null \
	    && echo "The native part was built: the scan runs on the native CPU backend." \
	    || echo "The native part could not be built: the scan runs on the slower portable backend. See why: $(BIN)/pip install -v --no-deps ."
	@touch $@

$(VENV)/installed-for-tests: $(VENV)/installed constraints.txt
	$(INSTALL) --quiet 'serpent-ir[train,test]'
	@touch $@

$(VENV)/installed-for-cluster: $(VENV)/installed-for-tests constraints.txt
	$(INSTALL) --quiet 'serpent-ir[ray]'
	@touch $@

$(VENV)/installed-for-lint: $(VENV)/installed-for-tests constraints.txt
	$(INSTALL) --quiet 'serpent-ir[dev]'
	@touch $@

# -- what there is to do -----------------------------------------------------------------------------------------------

# The shell sees IMAGE as a variable, so names with spaces and quotes are safe.
export IMAGE
restore: $(VENV)/installed
	@image=$${IMAGE:-src/serpent_ir/cli/sample.png}; name=$${image%/}; name=$${name##*/}; \
	mkdir -p restored; \
	if [ -d "$$image" ]; then target=restored/$$name; else target=restored/$${name%.*}.png; fi; \
	if [ -n "$$IMAGE" ]; then task=photo; else task=deblur; fi; \
	$(BIN)/serpent restore --task $$task -- "$$image" "$$target"

test: $(VENV)/installed-for-tests
	$(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

test-cluster: $(VENV)/installed-for-cluster
	$(BIN)/python -m pytest tests/restoration/test_cluster.py

lint: $(VENV)/installed-for-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

export DATA
bench: $(VENV)/installed-for-tests
	$(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/scaling_cpu.py
	@if [ -n "$$DATA" ]; then $(BIN)/python benchmarks/deblur_cbsd68.py --data "$$DATA" && \
	$(BIN)/python benchmarks/weights_cbsd68.py --data "$$DATA"; \
	else echo "deblur_cbsd68.py and weights_cbsd68.py were left out; they need a folder of clean photographs:" \
	    "make bench DATA=path/to/CBSD68"; fi

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
