# The daily verbs. `make run` and `make test` need nothing but Debian or Ubuntu with Python 3.11 or newer: they make a
# virtual environment in .venv from the lock, once, and again when the lock, pyproject.toml or the contracts change.
# Tests that need more (Go, PostgreSQL, ZooKeeper, OpenStack) are skipped where it is missing, and say how to get it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MADE := .make

SOURCES = $(wildcard vmshepherd_kit preset_service runtime_service iaas_service health_service orchestrator admin bench) tests hatch_build.py
CONTRACTS = $(shell find protos -name '*.proto')
# The newest release: what contracts may not break.
RELEASE = $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test simulate check setup protos lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## Run the whole suite with the presets in examples/; its VMs go when it ends.
	$(BIN)/vmshepherd up --ephemeral -c examples/vmshepherd.yaml

test: setup ## Run the tests. TESTS=path narrows them; VMSHEPHERD_NO_SKIP=1 makes a skip an error.
	$(BIN)/pytest -n 2 --dist loadgroup $(TESTS)

simulate: setup ## Simulate the suite under faults. SEEDS=n HOURS=h: how many seeds, how long each.
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),100) --hours $(or $(HOURS),1)

check: setup ## Stubs, lint, types, layers, contracts.
	$(BIN)/python hatch_build.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/codespell
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf format --diff --exit-code
ifneq ($(RELEASE),)
	cd protos && ../$(BIN)/buf breaking --against '../.git#tag=$(RELEASE),subdir=protos'
endif

setup: $(MADE)/setup $(MADE)/protos ## Make the virtual environment and the stubs, when they are not fresh.

protos: $(MADE)/venv ## Generate the Python stubs of the contracts anew.
	@$(BIN)/python hatch_build.py
	@touch $(MADE)/protos

lock: $(MADE)/venv ## Pin the newest versions that pyproject.toml allows.
	$(BIN)/uv pip compile --upgrade $(LOCKING) --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --upgrade $(LOCKING) --constraints requirements.lock --all-extras --group dev --output-file requirements-dev.lock pyproject.toml
	$(BIN)/uv pip compile --upgrade $(LOCKING) --constraints requirements-dev.lock --extra postgres --extra zookeeper --output-file requirements-runtime.lock pyproject.toml
	$(BIN)/uv pip compile --upgrade $(LOCKING) --constraints requirements-dev.lock --extra openstack --output-file requirements-iaas.lock pyproject.toml

clean: ## Remove all that was made here: environment, stubs, caches.
	rm -rf $(VENV) $(MADE) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find protos/vmshepherd \( -name '*.py' -o -name '*.pyi' -o -name py.typed \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

LOCKING = --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

# What the lock says, nothing else: hashes are demanded of every package. An environment that works is brought up to date
# in its place, so that what runs from it goes on running.
$(MADE)/venv: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is older or absent: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ $(PYTHON) -c 'import sys; print("Python lacks its venv module: apt-get install python3.%d-venv" % sys.version_info[1])' >&2; exit 1; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@mkdir -p $(MADE) && touch $@

# The project itself: a .pth file, the command and the entry points.
$(MADE)/setup: $(MADE)/venv pyproject.toml hatch_build.py
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@ $(MADE)/protos

$(MADE)/protos: $(MADE)/venv hatch_build.py $(CONTRACTS)
	@$(BIN)/python hatch_build.py
	@touch $@
