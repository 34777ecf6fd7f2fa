# `make up` starts everything, `make test` proves everything. Needed: python3 (3.11 or later, with
# venv) and make; the rest comes from the lock file into .venv.

.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
UV_VERSION := 0.13.8
# The uv on PATH if it is new enough for the lock file, else one installed into the environment.
UV_ON_PATH := $(shell found=$$(uv --version 2>/dev/null | cut -d' ' -f2); \
  [ -n "$$found" ] && [ "$$(printf '0.9.0\n%s\n' "$$found" | sort -V | head -n 1)" = 0.9.0 ] && \
  command -v uv)
UV := $(or $(UV_ON_PATH),$(VENV)/bin/uv)
export UV_PROJECT_ENVIRONMENT := $(VENV)
PATHS := schema frontend_api writer deploy tests

.PHONY: help up test prove lint bench clean python

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

up: $(VENV)/.ready ## start everything; Ctrl-C stops it (PORT=8000, AFTERWRITE_HOME=./.afterwrite)
	@exec $(VENV)/bin/afterwrite up --with-parent

test: $(VENV)/.ready-dev ## everything that can be proved on one machine
	$(MAKE) lint
	tests/matrix.sh $(VENV)/bin/pytest

prove: $(VENV)/.ready-dev ## 10,000 random batches are the same as their commands one by one (15 min)
	AFTERWRITE_TEST_EXAMPLES=10000 $(VENV)/bin/pytest -q tests/integration/test_batches.py

lint: $(VENV)/.ready-dev ## style, types, layers
	$(VENV)/bin/ruff format --check $(PATHS)
	$(VENV)/bin/ruff check $(PATHS)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.ready-dev ## how fast it is beside its references; writes docs/benchmarks.md (23 min)
	$(VENV)/bin/python -m tests.bench --write

clean: ## remove the environment and the caches (not the data in .afterwrite)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/.ready: uv.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing what uv.lock names into $(VENV) …"
	@$(UV) sync --locked --inexact --no-default-groups --extra embedded --extra alerts
	@touch $@

$(VENV)/.ready-dev: uv.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing what uv.lock names into $(VENV) …"
	@$(UV) sync --locked --all-groups --extra embedded
	@touch $@ $(VENV)/.ready

$(VENV)/bin/python: | python
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: $(PYTHON) cannot make environments." >&2; \
	  echo "  → Install its venv module (Debian: apt install python3-venv)." >&2; exit 1; }
	@[ -n "$(UV_ON_PATH)" ] || $(VENV)/bin/python -m pip install --quiet \
	  --disable-pip-version-check uv==$(UV_VERSION) || { rm -rf $(VENV); \
	  echo "make: uv $(UV_VERSION) could not be installed." >&2; \
	  echo "  → The first start needs the network (behind a proxy: HTTPS_PROXY)." >&2; exit 1; }

python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "make: there is no $(PYTHON)." >&2; \
	  echo "  → Install Python 3.11 or later (Debian: apt install python3 python3-venv)." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); 3.11 or later is needed." >&2; \
	  echo "  → Name a newer one: make up PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) has no venv module." >&2; \
	  echo "  → Install it (Debian: apt install python3-venv)." >&2; exit 1; }
