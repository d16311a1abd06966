# Needs Python 3.11.4 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

DATA ?= $(or $(DUAL_BENCH_DATA),../shared/data)

.PHONY: run test check chaos bench reference calibration clean

run: $(VENV)/.installed ## set up, and run the default study on the embedded corpus
	$(BIN)/dual-bench run

test: $(VENV)/.installed-dev ## set up, and run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-dev ## style, types and the directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "dual-bench needs Python 3.11.4 or newer, found " + sys.version.split()[0] + "; name another with PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[asr]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable '.[dev]'
	@npm install --silent --prefix $(VENV) --no-save --no-package-lock --ignore-scripts --fetch-retries=1 axe-core@4.11.0 || echo "no axe-core: the test that uses it is skipped"
	@touch $@

chaos: $(VENV)/.installed-dev ## kill a run at fifty random moments, and compare what it ends with; about ten minutes
	CHAOS=50 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_chaos.py

bench: $(VENV)/.installed-dev ## speeds, each as a ratio to a named alternative in the same run; what is not met does not fail it; 35 minutes
	$(BIN)/python benchmarks/all.py --data $(DATA) --out reports/reference

reference: $(VENV)/.installed-dev ## the reference report, from its rows where they are there; and what the noise does to the real lines in DATA
	$(BIN)/dual-bench run reference --out reports/reference/synthetic
	$(BIN)/dual-bench report reports/reference/synthetic --format latex
	[ ! -d $(DATA) ] || OMP_NUM_THREADS=1 $(BIN)/python benchmarks/realised.py $(DATA) --out reports/reference

calibration: $(VENV)/.installed-dev ## do intervals cover, and do tests keep their level? about half an hour
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/calibration.py --out reports/reference

clean: ## remove what was set up
	rm -rf $(VENV) build dist *.egg-info
