# Everything a newcomer needs: `make demo`, `make test`. Each target sets up what it needs in .venv.

VENV := .venv
BIN := $(VENV)/bin
MODULES := enclave_broker ta_runner sample_analytics
DOCKER ?= docker
PYTEST_ARGUMENTS ?= --numprocesses 4 --dist worksteal  # most tests wait for something most of the time

.DEFAULT_GOAL := help
.PHONY: help demo test lint images bench lock install clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime  ## Set up and run the main job: three modules, sealed results, a reader
	@$(BIN)/edgeclave demo

test: $(VENV)/.development  ## Set up, lint and run all tests
	@sh deploy/install-test-packages.sh
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest $(PYTEST_ARGUMENTS)

lint: $(VENV)/.development  ## Formatting, style, types and the import contract of the trust boundary
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary edgeclave modules/enclave_broker/enclave_broker modules/ta_runner/ta_runner modules/sample_analytics/sample_analytics bench
	@PYTHONPATH=modules/enclave_broker:modules/ta_runner:modules/sample_analytics $(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint .devcontainer/Dockerfile modules/*/Dockerfile.*

images: LABELS = --build-arg REVISION=$(shell git rev-parse HEAD) --build-arg CREATED=$(shell date -u +%FT%TZ) \
	--build-arg SOURCE=$(shell git config --get remote.origin.url)
images:  ## Build the modules' images with Docker, as edgeclave/MODULE
	@command -v $(DOCKER) >/dev/null || { echo "error: $(DOCKER) is not there"; \
	    echo "  do:    install Docker Engine, or name its client: make images DOCKER=/path/to/docker"; exit 1; } >&2
	@for module in $(MODULES); do \
	    echo "Building edgeclave/$$module ..."; \
	    DOCKER_BUILDKIT=1 $(DOCKER) build --quiet $(if $(BASE),--build-arg BASE=$(BASE)) $(LABELS) \
	        --tag edgeclave/$$module --file modules/$$module/Dockerfile.amd64 . || exit 1; \
	done

bench: $(VENV)/.development  ## Measure ratios against bare references, in one run
	@$(BIN)/python -m bench

lock: $(VENV)/.development  ## Renew the versions and hashes that the images install, and their bills of materials
	@$(BIN)/python deploy/lock.py

install: $(VENV)/.development  ## Only set up .venv, with everything for development

clean:  ## Remove the virtual environment and all local state
	rm -rf $(VENV) .edgeclave .env config

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing edgeclave into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --use-pep517 --editable '.[simulator,build]'
	@touch $@

$(VENV)/.development: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing edgeclave and its development tools into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --use-pep517 --editable '.[dev]'
	@touch $@ $(VENV)/.runtime

$(VENV)/bin/pip:
	@PYTHON="$(PYTHON)" sh deploy/make-venv.sh $(VENV)
