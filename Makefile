# make run    train on the default curriculum;  make run ARGS="experiment=cartpole seed=3"
# make test   everything CI checks;             make test TESTS=tests/agent
# Needs python3 (3.11 or newer) and pip. Everything else goes into .venv, once, and again when pyproject.toml changes.

PYTHON ?= python3
EXTRAS ?= dev
ARGS ?=
TESTS ?= tests
JOBS ?= 2

BIN := .venv/bin
READY := .venv/.ready-$(EXTRAS)

.DEFAULT_GOAL := help
.PHONY: help run test lint clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo '  ARGS="..." goes to run.py, TESTS=path picks tests, EXTRAS=dev,bench installs more, PYTHON=python3.12 picks the Python'

run: $(READY) ## train; ARGS="key=value ..." changes the config, ARGS=--help lists it
	@$(BIN)/python run.py $(ARGS)

# One thread a process: with one test process a core, more threads only wait for each other.
test: lint ## lint, check types, run the tests
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(TESTS)

lint: $(READY) ## lint and check types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove .venv and caches (never runs)
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Strata needs Python 3.11 or newer and '$(PYTHON)' is not (or does not start): install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  $(PYTHON) -m venv .venv; \
	else \
	  $(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; \
	fi || { rm -rf .venv; \
	  echo "'$(PYTHON)' cannot make a virtual environment: install its venv and pip modules (Debian, Ubuntu: apt-get install python3-venv python3-pip)" >&2; exit 1; }

$(READY): pyproject.toml | $(BIN)/python
	@echo "Installing Strata and what it needs into .venv (once; PyTorch is large) ..."
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet -e '.[$(EXTRAS)]'
	@touch $@
