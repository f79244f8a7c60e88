# make demo        installs into .venv, fits the models of MBPO and FTFL, trains SAC, MBPO and FTFL: 6 minutes
# make forensics   installs into .venv, fits the model of all four switch settings to the same data: 10 minutes
# make coursework  installs into .venv, makes the homework's folder, solves and checks it: 2 minutes
# make test        installs into .venv, looks at the style of all Python files, runs all tests
SHELL := /bin/bash
RIGHT_PYTHON := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p -c "$(RIGHT_PYTHON)" 2>/dev/null && echo $$p && break; done)

.PHONY: demo forensics coursework test

demo: .venv/installed
	PATH="$(CURDIR)/.venv/bin:$$PATH" bash benchmark/demo.sh

forensics: .venv/installed
	PATH="$(CURDIR)/.venv/bin:$$PATH" bash benchmark/forensics.sh

coursework: .venv/installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 tests/test_coursework*.py

test: .venv/installed
	.venv/bin/ruff format --check *.py tests benchmark coursework
	.venv/bin/ruff check *.py tests benchmark coursework
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2

.venv/installed: requirements.txt
	@test -n "$(PYTHON)" || { echo "error: this needs Python 3.11 or 3.12; name one with make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
