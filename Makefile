# make demo        installs into .venv, fits the models of MBPO and FTFL, trains SAC, MBPO and FTFL: 8 minutes
# make forensics   installs into .venv, fits the model of all four switch settings to the same data: 10 minutes
# make figures     installs into .venv, draws the published figures and tables anew from benchmark/results
# make coursework  installs into .venv, makes the homework's folder, solves and checks it: 2 minutes
# make test        installs into .venv, looks at the style of all Python files, runs all tests (of Ray those of test-sweep only)
# make nightly     make test, and each script learns to balance a pendulum: some minutes more
# make test-sweep  installs Ray, too, into .venv-sweep, and runs the tests of benchmark/sweep.py on one machine and on Ray
SHELL := /bin/bash
RIGHT_PYTHON := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p -c "$(RIGHT_PYTHON)" 2>/dev/null && echo $$p && break; done)

NO_PYTHON := error: this needs Python 3.11 or 3.12: name one with make PYTHON=..., or make the environment before, with uv venv --seed --python 3.12 .venv

.PHONY: demo forensics figures coursework test nightly test-sweep

demo: .venv/installed
	PATH="$(CURDIR)/.venv/bin:$$PATH" bash benchmark/demo.sh

forensics: .venv/installed
	PATH="$(CURDIR)/.venv/bin:$$PATH" bash benchmark/forensics.sh

figures: .venv/installed
	.venv/bin/python benchmark/figures.py

coursework: .venv/installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 tests/test_coursework*.py

test: .venv/installed
	.venv/bin/ruff format --check *.py tests benchmark coursework
	.venv/bin/ruff check *.py tests benchmark coursework
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2

nightly: export NIGHTLY = 1
nightly: test

test-sweep: .venv-sweep/installed
	OMP_NUM_THREADS=1 .venv-sweep/bin/python -m pytest -q tests/test_sweep.py

.venv/installed: requirements.txt
.venv-sweep/installed: requirements.txt benchmark/requirements-sweep.txt
.venv/installed .venv-sweep/installed:
	@test -x $(@D)/bin/python || test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -c "$(RIGHT_PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$^)
	touch $@
