# `make search` finds a cell on real digits; `make test` runs the tests.
# Both set up a virtual environment in .venv first, and reuse it while it is current.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: search test check clean

search: $(VENV)/.run
	$(BIN)/python launch/search.py --flagfile=launch/flagfiles/quickstart.flags

test: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.run: requirements.txt
	$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"zcpt_jax needs Python 3.11 or newer, $(PYTHON) is {v}; run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV)
