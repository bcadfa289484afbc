# Each target sets up what it needs: `make demo` installs the core only, the others add what work on the package needs.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# Small arrays, several processes: one thread each is fastest.
THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: demo test test-catalog test-cluster lint evaluate claims catalogue-latents bench bench-quick bench-model

demo: .venv/core
	$(BIN)/xlatent demo

test: .venv/dev
	$(THREADS) $(BIN)/pytest --numprocesses auto

# From the Chandra Source Catalog to a model, against services on loopback that fail; training is two minutes of it.
test-catalog: .venv/dev
	$(THREADS) $(BIN)/python tests/csc/end_to_end.py --minutes 2

# On a Dask cluster of processes that die, and as a HATS catalogue opened with LSDB.
test-cluster: .venv/cluster
	$(THREADS) $(BIN)/pytest -m cluster

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# What the latents say, on the catalogues and spectra beside the checkout: runs/evaluate/report.html.
CATALOGUES := ../shared/data/catalogues
EVALUATED := --data runs/evaluate/labelled.parquet --data runs/evaluate/properties.parquet \
	--labels $(CATALOGUES)/csc2_labelled_sources.csv --join $(CATALOGUES)/csc2_source_properties.csv \
	--spectra ../shared/data/spectra/manifest.csv --output runs/evaluate
evaluate: catalogue-latents
	$(THREADS) $(BIN)/xlatent evaluate $(EVALUATED)

# The same beside what the paper claims: runs/evaluate/claims.json.
claims: catalogue-latents
	$(THREADS) $(BIN)/python benchmarks/claims.py $(EVALUATED)

catalogue-latents: .venv/dev
	mkdir -p runs/evaluate
	$(THREADS) $(BIN)/xlatent catalog embed $(CATALOGUES)/csc2_labelled_sources.csv \
		--columns s=Fs,s_err=e_Fs,m=Fm,m_err=e_Fm,h=Fh,h_err=e_Fh --output runs/evaluate/labelled.parquet
	$(THREADS) $(BIN)/xlatent catalog embed $(CATALOGUES)/csc2_source_properties.csv --output runs/evaluate/properties.parquet

# Sherpa, the yardstick of reading, is used where it is installed: pip install sherpa, with its compilers.
bench: .venv/bench
	$(BIN)/python benchmarks/speed.py --output docs/speed.json --page docs/speed.md

# That all of it works, in five minutes; its times mean nothing.
bench-quick: .venv/bench
	$(BIN)/python benchmarks/speed.py --quick --output runs/speed-quick.json

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

.venv/cluster: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[dev,cluster,hats]"
	touch .venv/core .venv/dev $@

.venv/bench: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[bench]"
	touch .venv/core $@
