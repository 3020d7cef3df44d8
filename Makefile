# Chat4All. `make` lists the targets; `make up` and `make test` are all that a new user needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.requirements
LOAD := .venv-load
LOAD_STAMP := $(LOAD)/.requirements
# Tests that share one whole system; the others start the servers that they need, two files of them at a time.
ON_THE_SYSTEM := tests/contract tests/e2e tests/faults

.PHONY: help up down reset status logs test check bench bench-quick tls-scan dashboards load demo faults lock format install

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

install: $(STAMP)
$(STAMP): requirements.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Chat4All needs Python 3.11 or newer; $$($(PYTHON) --version) is too old. Set PYTHON=python3.x."; exit 1; }
	@echo "installing the Python packages into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable clients/python
	@touch $@

up: install ## install what is missing, start the whole system, say how to send a first message
	@$(BIN)/python -m infra.local up

down: install ## stop the whole system; the data stays
	@$(BIN)/python -m infra.local down

reset: install ## stop the whole system and wipe its data (asks first; YES=1 does not)
	@$(BIN)/python -m infra.local reset $(if $(YES),--yes)

status: install ## what runs, since when, on which port, and whether it is healthy
	@$(BIN)/python -m infra.local status

logs: install ## the newest log lines (PROGRAM=timeline for one program, FOLLOW=1 to follow)
	@$(BIN)/python -m infra.local logs $(PROGRAM) $(if $(FOLLOW),--follow)

demo: install ## two users chat through the running system; prints seqs and times
	@$(BIN)/python -m infra.local.demo

test: install ## run the tests (long proofs: make faults), on a system of their own beside a running one
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests $(addprefix --ignore=,$(ON_THE_SYSTEM))
	@$(BIN)/python -m pytest $(ON_THE_SYSTEM)

check: install ## what CI runs besides the tests: format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

faults: install ## kill every process, and timeline workers in all ways, under load, three rounds (about 40 minutes)
	@CHAT4ALL_FAULT_ROUNDS=3 CHAT4ALL_BACK_SECONDS=15 CHAT4ALL_RESUME_CLIENTS=200 CHAT4ALL_RESUME_SECONDS=60 \
	  CHAT4ALL_WEBHOOK_MESSAGES=10000 CHAT4ALL_KILL_SECONDS=15 \
	  $(BIN)/python -m pytest -m "long or not long" -rP tests/faults \
	  tests/e2e/test_processes.py tests/e2e/test_stream_tools.py tests/e2e/test_connectors.py

tls-scan: install ## have testssl.sh look at the gateway's TLS, with a certificate of a local ACME server (a minute or two)
	@$(BIN)/python -m tests.tls_scan

bench: install ## measure this machine against the targets and baselines (about 40 minutes; writes docs/benchmarks.json)
	@$(BIN)/python -m tests.benchmarks

bench-quick: install ## a little of every measurement, to see that they work; never fails for being slow
	@$(BIN)/python -m tests.benchmarks --quick

load: install $(LOAD_STAMP) ## users of Locust against the running system, for 20 s (USERS=20 SECONDS=20)
	@$(LOAD)/bin/locust -f tests/load/locustfile.py --headless --only-summary --users $(or $(USERS),20) \
	  --spawn-rate 10 --run-time $(or $(SECONDS),20)s
$(LOAD_STAMP): requirements-load.lock
	@echo "installing Locust into $(LOAD) ..."
	@$(PYTHON) -m venv $(LOAD)
	@$(LOAD)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-load.lock
	@touch $@

dashboards: install ## write Grafana's dashboards from their definitions (infra/grafana)
	@$(BIN)/python -m infra.grafana

format: install ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: install ## resolve the requirements of pyproject.toml anew into requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --no-emit-index-url --python-version 3.11 \
	  --group local --group dev pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --no-emit-index-url --python-version 3.11 \
	  --group load -o requirements-load.lock
