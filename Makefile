# Each target sets up what it needs: `make demo` installs the core only, the others add what work on the package needs.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# Small arrays, several processes: one thread each is fastest.
THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: demo test test-catalog lint bench bench-model

demo: .venv/core
	$(BIN)/xlatent demo

test: .venv/dev
	$(THREADS) $(BIN)/pytest --numprocesses auto

# From the Chandra Source Catalog to a model, against services on loopback that fail; training is two minutes of it.
test-catalog: .venv/dev
	$(THREADS) $(BIN)/python tests/catalog/end_to_end.py --minutes 2

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/bench
	$(BIN)/python benchmarks/speed.py

bench-model: .venv/bench
	$(THREADS) $(BIN)/python benchmarks/reconstruction.py

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/core: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) .
	touch $@

.venv/dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[dev]"
	touch .venv/core $@

.venv/bench: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[bench]"
	touch .venv/core $@
