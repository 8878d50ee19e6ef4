PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready

# Real parts that this machine cannot have, by name: make test WITHOUT=controlplane,alertmanager
WITHOUT ?=
export WITHOUT

# The Kubernetes that the control plane is of; empty for the newest: make test KUBERNETES=1.36
KUBERNETES ?=
export KUBERNETES

# They share a control plane, and mostly wait for it.
ON_PLANE := tests/controlplane tests/deploy tests/alertmanager

# Two runs of pytest side by side, each in a temporary folder of its own.
define beside
@echo "Two runs side by side; what $(1) say follows at the end."
@own=$$(mktemp -d); trap 'kill $$other; rm -rf $$own' INT TERM; \
$(BIN)/python -m pytest -p no:cacheprovider --basetemp $$own/tests $(1) >$$own/log 2>&1 & other=$$!; \
$(BIN)/python -m pytest $(2); first=$$?; \
wait $$other; other=$$?; cat $$own/log; rm -rf $$own; test $$first = 0 && test $$other = 0
endef

.DEFAULT_GOAL := help
.PHONY: help install format check quick test lowest cover bench soak demo lock chart findings clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

install: $(READY) ## .venv with the locked dependencies and the `watcher` command

format: $(READY) ## fix what ruff can fix
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

check: $(READY) ## lint, formatting, types, layers, the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

quick: $(READY) ## the tests that need nothing but Python, in about a minute
	$(call beside,tests/integration,tests/unit tests/property tests/contract)

test: $(READY) ## every test; the first run builds a real control plane
ifeq ($(findstring controlplane,$(WITHOUT)),)
	-$(BIN)/python -m tests.controlplane.binaries  # its tests tell again what is missing
	-$(BIN)/python -m tests.deploy.tools
endif
	$(call beside,$(ON_PLANE),tests $(ON_PLANE:%=--ignore=%))

LOWEST := build/lowest

lowest: $(READY) ## the tests with the lowest versions that pyproject.toml takes; for Python 3.11
	$(BIN)/uv venv --quiet --clear --no-config --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --no-config --python $(LOWEST)/bin/python \
		--resolution lowest-direct --group dev --editable '.[apprise]'
	$(LOWEST)/bin/python -m pytest tests/unit tests/property tests/contract tests/integration tests/acceptance

cover: $(READY) ## line and branch coverage of the tests that run in this process
	$(BIN)/python -m pytest --cov tests/unit tests/property tests/contract tests/integration tests/acceptance

bench: $(READY) ## the benchmarks
	$(BIN)/python -m benchmarks

soak: $(READY) ## the long runs
	$(BIN)/python -m pytest --timeout 0 -m soak tests

demo: $(READY) ## a scripted outage on an embedded API server, in about a minute
	$(BIN)/watcher demo

# Without UPGRADE=1 a locked version stays while it satisfies pyproject.toml.
LOCK = $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-header $(if $(UPGRADE),--upgrade)

lock: $(READY) ## resolve the dependencies again; UPGRADE=1 for the newest
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --extra apprise --group dev --constraints requirements.lock --output-file requirements-dev.lock
	$(LOCK) --group build --constraints requirements-dev.lock --output-file requirements-build.lock

chart: $(READY) ## bring the chart's schema up to date with the configuration
	$(BIN)/python -m tests.deploy.config_schema

findings: ## run again what surprised in the software of others; needs pip, npm, go and the registries
	@changed=; for each in findings/*.sh; do echo "== $$each"; $$each || changed="$$changed $$each"; done; \
	test -z "$$changed" || { echo "not as it was:$$changed" >&2; exit 1; }

clean: ## remove .venv and every cache of the tools
	rm -rf .venv build dist htmlcov .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is not: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

$(READY): requirements-dev.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	@touch $@
