# `make demo` and `make test` are all that is needed; both set up .venv first.
# Another interpreter: make PYTHON=python3.13 setup (after rm -rf .venv).

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet --quiet
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

ADAPTERS := $(patsubst %/pyproject.toml,%,$(wildcard integrations/*/pyproject.toml))
EDITABLE := --editable '.[cli,httpx2,redis,sdk,testing]' $(foreach adapter,$(ADAPTERS),--editable ./$(adapter))

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs bench upgrade clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

setup: $(STAMP) ## Make .venv with everything; does nothing when it is up to date

$(STAMP): pyproject.toml constraints.txt $(ADAPTERS:=/pyproject.toml)
	@set -e; \
	usable='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'; \
	if ! $(BIN)/python -c "$$usable" 2>/dev/null; then \
		for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
			if $$python -c "$$usable" 2>/dev/null; then found=$$python; break; fi; \
			if [ "$$python" = "$(PYTHON)" ]; then echo "PYTHON=$(PYTHON) is not a Python >= 3.11 with venv" >&2; exit 1; fi; \
		done; \
		if [ -z "$$found" ]; then echo "No Python >= 3.11 with venv found; name one: make PYTHON=/path/to/python setup" >&2; exit 1; fi; \
		echo "Making $(VENV) with $$($$found --version)"; \
		$$found -m venv --clear $(VENV); \
	fi
	@echo "Installing insider-otel and its tools into $(VENV)"
	@$(PIP) install --constraint constraints.txt pip
	@$(PIP) install --constraint constraints.txt --group dev
	@$(PIP) install --constraint constraints.txt --no-build-isolation $(EDITABLE)
	@touch $(STAMP)

demo: setup ## Show what a call to Insider looks like as a trace
	@$(BIN)/insider-otel demo

test: setup ## Run the tests; branch coverage of the library has to be 95 % or more
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: setup ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy $(wildcard integrations/*/insider_otel_* integrations/testkit/insider_*)
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: setup ## Make docs/attributes.md from semconv/model
	@$(BIN)/python -m semconv

upgrade: setup ## Renew constraints.txt: the newest releases of everything
	@$(PIP) install --upgrade --upgrade-strategy eager pip
	@$(PIP) install --upgrade --upgrade-strategy eager --group dev
	@$(PIP) install --upgrade --upgrade-strategy eager --no-build-isolation $(EDITABLE)
	@{ head -1 constraints.txt; $(BIN)/python -m pip list --format=freeze --exclude-editable --exclude setuptools | sort -f; } > constraints.new
	@mv constraints.new constraints.txt

bench: setup ## Measure what the library costs
	$(BIN)/python -m benchmarks

clean: ## Remove what builds, tests and tools leave behind; .venv stays
	rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +
