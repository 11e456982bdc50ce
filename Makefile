# `make search` finds a cell on real digits; `make test` runs the tests, in WORKERS
# processes, and `make unit` those that take seconds; `make docs` builds the pages of
# docs/ in site/. They set up a virtual environment in .venv first, and reuse it while it
# is current.
# `make accelerators` compiles for GPUs and TPUs on a machine that has none. Its virtual
# environment in .venv-accelerators takes 6.8 GB (CUDA and libtpu);
# CUDA=cuda13 suits jax 0.12 and newer.
# ACCELERATORS=reduced compiles every space with every proxy, reduced, and
# ACCELERATORS=all at full size, for hours.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ACCELERATORS_VENV := .venv-accelerators
ACCELERATORS_BIN := $(ACCELERATORS_VENV)/bin
ACCELERATORS ?= default
CUDA := cuda12

# An accelerator serves one process. What a file's tests share is made once, in one of
# the processes; XLA compiles with several threads, so that more than two gain little.
WORKERS ?= $(if $(filter-out cpu,$(JAX_PLATFORMS)),0,2)

.PHONY: search test unit check docs accelerators clean

search: $(VENV)/.run
	$(BIN)/python launch/search.py --flagfile=launch/flagfiles/quickstart.flags

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist=loadfile --no-loadscope-reorder

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -m unit

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

accelerators: $(ACCELERATORS_VENV)/.dev
	JAX_PLATFORMS=cpu $(ACCELERATORS_BIN)/python -m benchmarks.compile_checks --programs=$(ACCELERATORS)

$(VENV)/.run: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"zcpt_jax needs Python 3.11 or newer, $(PYTHON) is {v}; run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.docs: $(VENV)/.run pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

$(ACCELERATORS_VENV)/.dev: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"zcpt_jax needs Python 3.11 or newer, $(PYTHON) is {v}; run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(ACCELERATORS_VENV)
	$(ACCELERATORS_BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt "jax[$(CUDA),tpu]"
	touch $@

clean:
	rm -rf $(VENV) $(ACCELERATORS_VENV) site
