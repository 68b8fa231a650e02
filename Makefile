# Every target CI calls; a newcomer needs `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
HISTORY ?=
AUTHOR ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The versions the tests passed with; `make setup PINS=` takes the newest that pyproject.toml allows.
PINS ?= --constraint constraints/dev.txt
PINS_EXPORT ?= --constraint constraints/export.txt
# Tests run in two processes, for many wait. Those of a file stay in one: they share an LLM or a
# browser. Files are begun in their order, and so the longest tests, those of e2e, not at the end.
TWICE := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test setup lint type test-fast test-export smoke install-check freeze bench bench-full readme clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.core: pyproject.toml constraints/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	@echo "installing hydra-edge"
	$(PIP) install --quiet $(PINS) --editable .
	@touch $@

$(VENV)/.local: $(VENV)/.core
	@echo "installing the local LLM backend: compiles llama.cpp, about 5 minutes the first time"
	$(BIN)/python scripts/install_local.py $(PINS) --editable ".[local]"
	@touch $@

$(VENV)/.dev: $(VENV)/.local
	@echo "installing what the tests need"
	$(PIP) install --quiet $(PINS) --editable ".[local,dev]"
	@touch $@

demo: $(VENV)/.local ## Personalize a local LLM on a sample history (HISTORY=path/to/git/repo [AUTHOR=name] for yours)
	$(BIN)/python examples/demo.py $(if $(HISTORY),--history "$(HISTORY)") $(if $(AUTHOR),--author "$(AUTHOR)")

setup: $(VENV)/.dev ## Install everything for development

test: setup ## Run all tests, with the real base and a real local LLM
	$(BIN)/python -m pytest $(TWICE)

test-fast: setup ## Run the tests that need no LLM
	$(BIN)/python -m pytest $(TWICE) -m "not model"

$(VENV)-export/.done: pyproject.toml constraints/export.txt
	$(PYTHON) -m venv $(VENV)-export
	$(VENV)-export/bin/python -m pip install --quiet --upgrade pip
	@echo "installing torch and optimum into $(VENV)-export"
	$(VENV)-export/bin/python -m pip install --quiet $(PINS_EXPORT) --editable ".[export]" pytest pytest-timeout pytest-xdist hypothesis
	@touch $@

test-export: $(VENV)-export/.done ## Run the tests of making a base (needs torch, in a venv of its own)
	OMP_NUM_THREADS=1 $(VENV)-export/bin/python -m pytest $(TWICE) tests/export

lint: setup ## Check style and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python scripts/readme.py --check

type: setup ## Check types
	$(BIN)/mypy

smoke: setup ## Build the wheel and try it in a clean environment
	$(BIN)/python scripts/smoke.py

install-check: setup ## Install the wheel by pipx and by uv, as people do, and use it
	$(BIN)/python scripts/install_check.py

freeze: setup ## Freeze the command into a folder that needs no Python, and use it there
	$(BIN)/python scripts/freeze.py

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install --quiet $(PINS) --editable ".[local,dev,bench]"
	@touch $@

bench: $(VENV)/.bench ## Measure speed, memory and growth here, some minutes, into bench/results/runs (quality: see CONTRIBUTING)
	$(BIN)/python -m bench.latency --quick --plot
	$(BIN)/python -m bench.leak --generations 200
	$(BIN)/python -m bench.memory --sizes 1000 --plot
	$(BIN)/python -m bench.scale --sizes 1000 --plot

bench-full: $(VENV)/.bench ## The same in full: a quarter of an hour and more on a machine at rest
	$(BIN)/python -m bench.latency --plot
	$(BIN)/python -m bench.leak
	$(BIN)/python -m bench.memory --sizes 1000,10000 --plot
	$(BIN)/python -m bench.scale --sizes 1000,3000 --plot
	$(BIN)/python -m bench.peers --plot

readme: setup ## Write the README's transcript and figures anew
	$(BIN)/python scripts/readme.py

clean: ## Remove what these targets made
	rm -rf $(VENV) $(VENV)-export .demo dist build
