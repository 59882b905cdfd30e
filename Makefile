# make demo   everything in two minutes, on handwritten digits: no download but the installation's
# make cluster-demo   a search on Ray, PostgreSQL, an MLflow server and an object store, all on this machine
# make setup  the environment alone, in .venv
# make test   all tests        make test-quick   those that take seconds       (JOBS=4: in four processes, not two)
# make check  lint, format, types, tests: what CI runs
# make ui     MLflow's page on this folder's runs (DIR=demo for the demo's)

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
EXTRAS ?= dev
DIR ?= .
installed := $(VENV)/.installed
install = $(VENV)/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: setup demo cluster-demo test test-quick lint check ui
.DEFAULT_GOAL := setup

setup: $(installed)

$(installed): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, %s is %s; name another: make PYTHON=python3.12" % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)
	$(install) '.[$(EXTRAS)]'
	@touch $@

demo: $(installed)
	sh examples/demo.sh

# An environment that is there already may lack what the cluster needs.
$(installed)-cluster: $(installed)
	$(install) '.[$(EXTRAS),cluster]'
	@touch $@

cluster-demo: $(installed)-cluster
	python deploy/demo.py --wait

# JOBS processes of one thread each. OpenMP's threads, where a test asks for several, would else wait for a core of the
# other process busily. They take the tests in the order of tests/conftest.py, the longest first.
test test-quick: export OMP_NUM_THREADS = 1
test test-quick: export OMP_WAIT_POLICY = passive

test: $(installed)
	python -m pytest --numprocesses $(JOBS) --dist loadgroup --no-loadscope-reorder

test-quick: $(installed)
	python -m pytest --numprocesses $(JOBS) --dist loadgroup --no-loadscope-reorder -m 'not slow'

# Benchmarks replace parts of the package, and use libraries without types that need not be installed. Calls are checked.
lint: LOOSER = --allow-untyped-calls --allow-subclassing-any --no-warn-unused-ignores --no-warn-return-any \
    $(addprefix --disable-error-code=,assignment import-untyped import-not-found type-var operator)
lint: $(installed)
	ruff check .
	ruff format --check .
	mypy
	MYPYPATH=benchmarks mypy $(LOOSER) benchmarks/*.py
	lint-imports --no-logo

check: lint test

ui: $(installed)
	cd $(DIR) && MLFLOW_WORKERS=1 MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui
