# Needs Python 3.11.4 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
# What pip does on one core; a few files of a few packages are for other Pythons, and do not compile.
COMPILE := $(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true

DATA ?= $(or $(DUAL_BENCH_DATA),../shared/data)

AUDIT := build/audit
# Tests start many processes: compiled files are kept, whatever the environment says.
PYTEST := OMP_NUM_THREADS=1 PYTHONWARNINGS=error PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 \
  --dist loadfile --no-loadscope-reorder

.PHONY: run test slow wheel-test coverage check audit chaos fuzz mutants bench reference calibration clean

run: $(VENV)/.installed ## set up, and run the default study on the embedded corpus
	$(BIN)/dual-bench run

test: $(VENV)/.installed-dev ## set up, and run the tests; in each file in random order, by the seed that is printed
	$(PYTEST)

slow: $(VENV)/.installed-dev ## the tests that take long: whole commands seen from below, tuning on poisoned labels, longer proofs of what others show in short
	$(PYTEST) -m slow

wheel-test: ## the tests in random order on a built wheel, outside the checkout; KEEP= a folder for its environment
	tests/installed.sh $(PYTHON)

coverage: $(VENV)/.installed-dev ## the tests, and which lines of the package they do not reach
	$(PYTEST) --cov

check: $(VENV)/.installed-dev ## style, types and the directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "dual-bench needs Python 3.11.4 or newer, found " + sys.version.split()[0] + "; name another with PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[asr]'
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable '.[dev]'
	@$(COMPILE)
	@npm install --silent --prefix $(VENV) --no-save --no-package-lock --ignore-scripts --fetch-retries=1 axe-core@4.11.0 || echo "no axe-core: the test that uses it is skipped"
	@touch $@

audit: $(VENV)/.installed-dev $(AUDIT)/.installed ## what is installed (build/sbom.json), its licences, its known vulnerabilities
	$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file build/sbom.json $(BIN)/python
	$(AUDIT)/bin/pip-licenses --python $(BIN)/python
	@$(AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off || \
	  { echo "audit: a package above is vulnerable, or was not looked up: that needs https://pypi.org/pypi/NAME/VERSION/json, which mirrors may not serve"; exit 1; }

$(AUDIT)/.installed: constraints.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt cyclonedx-bom pip-audit pip-licenses
	@touch $@

chaos: $(VENV)/.installed-dev ## kill a run at fifty random moments, and compare what it ends with; about ten minutes
	CHAOS=50 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_chaos.py

INPUTS ?= 1000000
SEED ?= 1

fuzz: $(VENV)/.installed-dev ## try a million inputs on every reader, corruption and writer; about half an hour; INPUTS and SEED say how many and which
	$(INSTALL) --editable '.[fuzz]' || echo "no atheris: hypothesis alone tries its part"
	PYTHONPATH=tests $(BIN)/python -m fuzz --inputs $(INPUTS) --seed $(SEED)

bench: $(VENV)/.installed-dev ## speeds, each as a ratio to a named alternative in the same run; what is not met does not fail it; 35 minutes
	$(BIN)/python benchmarks/all.py --data $(DATA) --out reports/reference

reference: $(VENV)/.installed-dev ## the reference report, from its rows where they are there; and what the noise does to the real lines in DATA
	$(BIN)/dual-bench run reference --out reports/reference/synthetic
	$(BIN)/dual-bench report reports/reference/synthetic --format latex
	$(BIN)/dual-bench verify reports/reference/synthetic
	[ ! -d $(DATA) ] || OMP_NUM_THREADS=1 $(BIN)/python benchmarks/realised.py $(DATA) --out reports/reference

calibration: $(VENV)/.installed-dev ## do intervals cover, and do tests keep their level? about half an hour
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/calibration.py --out reports/reference

MUTANTS ?= 300
mutants: $(VENV)/.installed-dev ## change the code, and see whether tests notice; MUTANTS of each part, 0 for all; half an hour
	$(INSTALL) --editable '.[mutants]'
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/mutants.py --sample $(MUTANTS)

clean: ## remove what was set up
	rm -rf $(VENV) build dist *.egg-info
