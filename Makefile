# Everything is built into .venv from the locked requirements/*.txt; nothing outside this folder is touched, except that
# `make test` and `make bench` install distribution packages when they run as root and those are missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first interpreter that is new enough, unless one is named: make up PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCKED := --quiet --require-hashes --only-binary :all:

# What the tests and benchmarks need from the distribution: the command that shows it is there, and its package there.
TEST_PACKAGES := nginx:nginx curl:curl chromium:chromium redis-server:redis-server pgbouncer:pgbouncer
BENCH_PACKAGES := nginx:nginx wrk:wrk

TEST_WORKERS ?= 3

RUNTIME_STAMP := $(VENV)/.runtime
TEST_STAMP := $(VENV)/.test

.PHONY: help
help: ## these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# ---- the environment -------------------------------------------------------------------------------------------------
# A stamp holds the state of its lock files; it is redone when they change and costs nothing when they have not.
$(VENV)/pyvenv.cfg:
	@[ -n "$(PYTHON)" ] || { echo "WatchLLM needs Python 3.11 or newer and found none on the PATH." \
		"Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "PYTHON=$(PYTHON) is missing or older than 3.11, which WatchLLM needs." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) lacks the venv module (on Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	@echo "building $(VENV) with $$("$(PYTHON)" --version)" >&2
	@"$(PYTHON)" -m venv --clear "$(VENV)"

$(RUNTIME_STAMP): $(VENV)/pyvenv.cfg requirements/build.txt requirements/runtime.txt pyproject.toml
	@echo "installing the locked dependencies" >&2
	@$(PIP) install $(LOCKED) -r requirements/build.txt
	@# setuptools leaves a .pth behind that every start of the interpreter would run.
	@$(PIP) uninstall --quiet --yes setuptools 2>/dev/null
	@$(PIP) install $(LOCKED) -r requirements/runtime.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(TEST_STAMP): $(RUNTIME_STAMP) requirements/test.txt
	@echo "installing the locked test dependencies" >&2
	@$(PIP) install $(LOCKED) -r requirements/test.txt
	@touch $@

.PHONY: setup
setup: $(TEST_STAMP) ## build .venv, test clients included, and return

# ---- run it ----------------------------------------------------------------------------------------------------------
.PHONY: up demo
up: $(RUNTIME_STAMP) ## proxy on 127.0.0.1:8787, console on 127.0.0.1:3000 (ARGS='--proxy-port 9000' passes options on)
	@exec $(BIN)/watchllm up $(ARGS)

demo: $(RUNTIME_STAMP) ## the same with simulated traffic
	@exec $(BIN)/watchllm demo $(ARGS)

# ---- look after it ---------------------------------------------------------------------------------------------------
# Installs what is missing from "command:package ..." when that can be done; tests that lack a server skip with the reason.
define install_packages
	@missing=""; for pair in $(1); do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "not installed, and not to be had without root and apt-get:$$missing" >&2; exit 0; fi; \
	echo "installing$$missing" >&2; log="$$(mktemp)"; \
	if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; } \
		>"$$log" 2>&1; then rm -f "$$log"; else cat "$$log" >&2; rm -f "$$log"; exit 1; fi
endef

.PHONY: test
test: $(TEST_STAMP) ## every test (ARGS='-k cache' passes options on)
	$(call install_packages,$(TEST_PACKAGES))
	@# Three workers for two processors: a third of what tests take is waiting for clocks that they test.
	@PATH="$$PATH:/usr/sbin:/sbin" $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(ARGS)

.PHONY: check
check: $(TEST_STAMP) ## lint, format, types, architecture, and what may not be in the tree
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/lint-imports --no-cache --no-logo --config .ci/cycles.toml
	@$(BIN)/python .ci/check_tree.py

.PHONY: format
format: $(TEST_STAMP) ## put the code into the house's form
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

.PHONY: bench soak
bench: $(TEST_STAMP) ## the benchmarks, as tables (ONLY=name runs one, JSON=out.json keeps the figures)
	$(call install_packages,$(BENCH_PACKAGES))
	@PATH="$$PATH:/usr/sbin:/sbin" $(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(JSON))

soak: $(TEST_STAMP) ## a million requests with distinct bodies, and what they leave in memory and on disk
	$(call install_packages,$(BENCH_PACKAGES))
	@PATH="$$PATH:/usr/sbin:/sbin" $(BIN)/python -m benchmarks --only soak $(if $(JSON),--json $(JSON))

.PHONY: fault
fault: $(TEST_STAMP) ## the tests that kill and cut things, for longer (KILLS=200)
	@PATH="$$PATH:/usr/sbin:/sbin" WATCHLLM_TEST_KILLS=$(or $(KILLS),200) \
		$(BIN)/python -m pytest --timeout 7200 tests/fault $(ARGS)

.PHONY: fuzz
fuzz: $(TEST_STAMP) ## the property tests with many more examples (EXAMPLES=20000)
	@HYPOTHESIS_PROFILE=fuzz WATCHLLM_FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) \
		$(BIN)/python -m pytest -n 2 --timeout 3600 -m fuzz tests $(ARGS)

EXTRAS_VENV := build/extras

.PHONY: extras
extras: $(TEST_STAMP) ## the tests of extras that are not locked (fastembed), in an environment of their own
	@[ -x $(EXTRAS_VENV)/bin/pytest ] || { $(BIN)/python -m venv $(EXTRAS_VENV) && \
		$(EXTRAS_VENV)/bin/pip --disable-pip-version-check install --quiet -e '.[test,test-fastembed]'; }
	@$(EXTRAS_VENV)/bin/python -m pytest -m extra tests $(ARGS)

# ---- dependencies ----------------------------------------------------------------------------------------------------
LOCK_VENV := build/lock
COMPILE = $(LOCK_VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-build \
	--no-annotate --no-header

.PHONY: lock
lock: $(VENV)/pyvenv.cfg ## write requirements/*.txt anew from pyproject.toml (UPGRADE=1 takes the newest)
	@[ -x $(LOCK_VENV)/bin/uv ] || { $(BIN)/python -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/pip install --quiet uv; }
	@$(COMPILE) $(if $(UPGRADE),--upgrade) requirements/build.in -o requirements/build.txt
	@$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements/runtime.txt
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --extra test -c requirements/runtime.txt pyproject.toml -o requirements/test.txt

.PHONY: clean
clean: ## remove .venv and all caches (not .watchllm: that is your data)
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
