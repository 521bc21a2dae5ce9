# Klingel: `make run` starts it, `make test` checks it. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Exact versions, by their hashes: uv fetches and compiles them side by side, in a third of pip's time. Where uv finds no
# registry, since it does not know how pip is configured, pip does it.
UV := VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode
FETCH = sh -c '$(UV) --require-hashes -r "$$0" || $(PIP) --require-hashes -r "$$0"'

.PHONY: help run test suite docs lint format chaos screenshots bench previews lock clean
.DEFAULT_GOAL := help

help:
	@echo "make run    start Klingel on http://127.0.0.1:8000 (SQLite, sandbox provider)"
	@echo "make test   lint, types, layers and the whole test suite"
	@echo "make docs   the documentation as a site, in site/"
	@echo "make bench  measure Klingel beside a bare server (twenty minutes; needs wrk and valgrind)"
	@echo "make chaos  kill a running Klingel many times, and compare (minutes)"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Klingel needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: requirements/uv.txt | $(BIN)/python
	$(PIP) --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/uv
	$(FETCH) requirements/run.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# Compiled is what gets imported, when it is: of most modules, a chat platform's thousands, no test needs any.
$(VENV)/.test: requirements/test.txt $(VENV)/.run
	$(subst --compile-bytecode,,$(FETCH)) requirements/test.txt
	@touch $@

# Programs that tests talk to; where there is no npm, these tests are skipped.
.node/.installed: tests/e2e/node/package.json
	@mkdir -p .node && cp $< .node/
	@if command -v npm >/dev/null; then npm install --prefix .node --no-audit --no-fund --no-package-lock --loglevel=error; fi
	@touch $@

# Trying Klingel means receiving webhooks on this machine, which the guard refuses unless it is told otherwise.
run: export KLINGEL_ALLOW_NETWORKS ?= 127.0.0.0/8,::1/128
run: $(VENV)/.run
	$(BIN)/klingel serve

# The linters run beside the tests, and what both need is fetched side by side. What is compiled is kept for the next worker and the next process, whatever the
# environment says. In the order of their names the longest tests, a browser's, begin first, all of a worker in one.
test: export PYTHONDONTWRITEBYTECODE :=
test:
	$(MAKE) --no-print-directory --jobs=2 lint suite

suite: $(VENV)/.test .node/.installed
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

$(VENV)/.docs: requirements/docs.txt $(VENV)/.run
	$(FETCH) requirements/docs.txt
	@touch $@

# The pages of docs/ as a site that needs no other host, in site/.
docs: $(VENV)/.docs
	$(BIN)/properdocs build --strict

# Kills a real Klingel again and again and writes what was found to docs/reliability.md. With DATABASE=postgresql one of
# five processes, or the database's server.
KILLS ?= 56
SEED ?= 1
DATABASE ?= sqlite
chaos: $(VENV)/.test
	$(BIN)/python -m tests.e2e.chaos --kills $(KILLS) --seed $(SEED) --database $(DATABASE) --write

# Draws what each chat platform shows to docs/chat/previews/, with the system's Chromium.
previews: $(VENV)/.test
	$(BIN)/python -m tests.previews

# Takes docs/images anew, from the sandbox.
screenshots: $(VENV)/.test
	$(BIN)/python -m tests.browser.screenshots

# Measures beside a baseline of the same minutes, and writes docs/performance.md. `make bench ONLY="ingest outbound" QUICK=1`
ONLY ?=
QUICK ?=
bench: $(VENV)/.test
	$(BIN)/python -m benchmarks $(ONLY) $(if $(QUICK),--quick)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Rewrites requirements/ from pyproject.toml: exact versions with hashes, no addresses.
lock:
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/python -m pip install --quiet uv
	sh requirements/lock.sh $(VENV)/lock/bin/uv

clean:
	rm -rf $(VENV)
