# `make` or `make help` lists the targets. Everything is built into .venv and target/.

PYTHON ?= python3
CARGO ?= cargo
# Where `make run` serves.
HTTP_SOCKET ?= 127.0.0.1:8000
# The profile of the extension in .venv. Tests run against what is released.
PROFILE ?= release

VENV := .venv
BIN := $(VENV)/bin
# Tests and benches link the libpython of this interpreter, whatever else is on PATH.
export PYO3_PYTHON := $(abspath $(BIN)/python)

SOURCES := Cargo.toml Cargo.lock build.rs pyproject.toml $(shell find src -name '*.rs')
PYTHON_FILES := python tests examples $(wildcard loadtest)

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench loadtest loadtest-guard wheel clean build

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: build ## Build everything and serve the demo on http://127.0.0.1:8000 (HTTP_SOCKET=host:port for another)
	@exec $(BIN)/hoopsnake --chdir examples/demo --config examples/demo/hoopsnake.toml --http-socket $(HTTP_SOCKET)

test: build $(VENV)/.test-tools ## Run every test: Rust, Python, all three drivers
	@rust=passed; python=passed; \
	$(CARGO) test || rust=FAILED; \
	$(BIN)/python -m pytest -q tests/python $(wildcard loadtest/test_loadtest.py) || python=FAILED; \
	echo; echo "make test: Rust tests $$rust, Python tests $$python"; \
	[ "$$rust $$python" = "passed passed" ]

lint: $(VENV)/.lint-tools ## Check format, lints, documentation and types
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --no-deps --document-private-items
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy --strict python
	@if $(BIN)/python -c 'import hoopsnake._core' 2>/dev/null; then \
		echo "stubtest hoopsnake wsgo"; $(BIN)/python -m mypy.stubtest hoopsnake wsgo; \
	else echo "stubtest skipped: the extension isn't built (make build)"; fi

format: $(VENV)/.lint-tools ## Put Rust and Python into the format that lint wants
	$(CARGO) fmt
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)

bench: $(BIN)/python ## Run the micro-benchmarks (criterion)
	$(CARGO) bench

loadtest: build ## Measure beside other servers in one run, write loadtest/results (minutes; see PERF.md)
	$(PYTHON) loadtest/run.py

loadtest-guard: build ## The short load test: fails when a ratio to a peer has dropped
	$(PYTHON) loadtest/run.py --guard

wheel: $(VENV)/.build-tools ## Build a wheel for this Python into dist/
	$(BIN)/maturin build --release --interpreter $(BIN)/python --out dist

build: $(VENV)/.built ## Build the extension and install it into .venv

clean: ## Remove .venv, target, dist and caches
	rm -rf $(VENV) target dist .pytest_cache .mypy_cache .ruff_cache python/hoopsnake/*.so
	find $(PYTHON_FILES) -name __pycache__ -type d -prune -exec rm -rf {} +

# --- How .venv comes about ---------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || \
		{ echo "make: Python 3.9 or newer is needed, as $(PYTHON). Another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make: $(PYTHON) can't make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
		{ echo "make: the headers of $(PYTHON) are missing: apt-get install python3-dev" >&2; exit 1; }
	@command -v $(CARGO) >/dev/null || \
		{ echo "make: cargo is missing: install a Rust toolchain (1.85 or newer)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "make: a C compiler is missing: apt-get install gcc libc6-dev" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build-tools: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'maturin>=1.9.4,<2'
	@touch $@

$(VENV)/.test-tools: tests/requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

$(VENV)/.lint-tools: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'ruff>=0.15' 'mypy>=1.15'
	@touch $@

# An editable install: only a change of the Rust side has to be built.
$(VENV)/.built: $(SOURCES) $(VENV)/.build-tools
	env -u CONDA_PREFIX -u PYO3_PYTHON VIRTUAL_ENV=$(abspath $(VENV)) \
		$(BIN)/maturin develop --profile $(PROFILE) --quiet
	@touch $@
