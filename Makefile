# Every target is a line or two that calls a tool; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo test check proto sync fmt lint types arch unit model contract sim integration e2e bench bench-peers plot verify-ten-million trap clean pin

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-20s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON=$(PYTHON) bash scripts/setup.sh $(VENV)

setup: $(VENV)/.installed ## Make .venv with everything pinned (done by the others on demand)

demo: setup ## Run a real job, kill a worker and the kernel in mid-run, and see it finish (DIR=... for other input)
	@$(BIN)/python scripts/demo.py --dir "$(or $(DIR),.)"

test: setup ## Run the whole test suite (N=n for other than 3 processes)
	@$(BIN)/python -m compileall -q libs services tests # Else, where writing it is forbidden, each process compiles anew.
	@$(BIN)/python -m pytest -q -n $(or $(N),3) --dist loadfile --no-loadscope-reorder tests

check: setup ## Contracts, generated code, format, lint, types, architecture: all must be clean
	@$(MAKE) --no-print-directory lint types arch
	@bash scripts/check_proto.sh $(BIN)

proto: setup ## Regenerate libs/protogen and docs/permissions.md from proto/
	@bash scripts/gen_protos.sh $(BIN) libs/protogen && $(BIN)/python scripts/gen_permissions.py docs/permissions.md

sync: setup ## Regenerate the blocking client from the one for asyncio
	@$(BIN)/python scripts/gen_sync_client.py

schema: setup ## Regenerate docs/plan.schema.json from the shapes of the plan form
	@$(BIN)/python scripts/gen_plan_schema.py docs/plan.schema.json

docs: setup ## Regenerate docs/command.md and the tables of docs/settings.md from the code
	@$(BIN)/python scripts/gen_docs.py docs

fmt: setup ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix-only -q . && $(BIN)/buf format -w --path proto/stretto

lint: setup ## Ruff, format check
	@$(BIN)/ruff check . && $(BIN)/ruff format --check -q .

types: setup ## mypy strict
	@$(BIN)/mypy libs/stretto_core libs/stretto_sdk libs/stretto_cli libs/stretto_verify services tests scripts

arch: setup ## Import contracts between layers and services
	@$(BIN)/lint-imports

unit: setup ## Unit tests
	@$(BIN)/python -m pytest -q tests/unit
model: setup ## Property and model tests of the deciders
	@$(BIN)/python -m pytest -q tests/model
contract: setup ## One suite per port, every adapter
	@$(BIN)/python -m pytest -q tests/contract
sim: setup ## The simulator (SEEDS=n for more seeds)
	@STRETTO_SIM_SEEDS=$(or $(SEEDS),200) $(BIN)/python -m pytest -q -n 2 --dist worksteal tests/simulation
integration: setup ## Real PostgreSQL, real gRPC
	@$(BIN)/python -m pytest -q tests/integration
e2e: setup ## Real processes, killed and stopped on purpose
	@$(BIN)/python -m pytest -q tests/e2e

bench: setup ## Print one JSON line per figure (ONLY=W1,fold for some; ROUNDS=n; docs/benchmarks.md)
	@$(BIN)/python -m tests.bench --only "$(ONLY)" $(if $(ROUNDS),--rounds $(ROUNDS))

bench-peers: setup ## Measure other systems beside ours, in an environment of their own (ONLY=dbos; ROUNDS=n)
	@$(BIN)/python -m venv $(VENV)/peers && $(VENV)/peers/bin/pip install -q -r tests/bench/peers/requirements.txt
	@cp tests/bench/peers/package.json $(VENV)/peers && { npm install --silent --ignore-scripts --prefix $(VENV)/peers || echo "npm did not install its part" >&2; }
	@$(BIN)/python -m tests.bench.peers --python $(VENV)/peers/bin/python --only "$(ONLY)" $(if $(ROUNDS),--rounds $(ROUNDS))

plot: setup ## Draw docs/cost-per-task.svg from the lines of `make bench ONLY=size` (FROM=file)
	@$(BIN)/python scripts/plot_sizes.py $(FROM) docs/cost-per-task.svg

verify-ten-million: setup ## Seal, export and verify a log of ten million events (EVENTS=n for another size; 10 GB of disk)
	@$(BIN)/python -m tests.bench.ten_million --events $(or $(EVENTS),10000000)

trap: setup ## Hold inserts open while 32 writers commit 1,000,000 events: nobody may pass over one (EVENTS=n)
	@$(BIN)/python -m tests.trap --events $(or $(EVENTS),1000000)

pin: setup ## Recompute constraints.txt from pyproject.toml
	@$(BIN)/python -m pip install -q uv && $(BIN)/uv pip compile --universal --no-header --all-extras --group dev pyproject.toml -o constraints.txt -q

clean: ## Remove what was built or cached
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
