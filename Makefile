# Needs Python >= 3.11 with venv and pip, and make. Everything is installed into .venv from pinned versions.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo hub-demo test quick lint style docs clean

demo: $(VENV)/installed  ## train an adapter on embedded data and answer questions with it
	$(BIN)/accelerate launch recipes/qa_adapter.py --overwrite

hub-demo: $(VENV)/installed-test  ## train, publish, verify and load, against a Hub on this machine
	$(BIN)/python -m tests.hub_server.demo

test: $(VENV)/installed-test  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

quick: style  ## the linters, and the tests that neither train nor start processes
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow"

lint: docs style  ## style and types, and whether the documentation builds

style: $(VENV)/installed-test  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-test  ## the documentation, into build/docs; `.venv/bin/mkdocs serve` shows it while it is written
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch by itself first: a range asked for by another package could bring another build than the pinned one.
$(VENV)/installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@
