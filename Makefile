# make notebooks   every notebook in order, unattended, then says where the results are
# make test        the checks; make test-slow adds whole runs and the browser
# make lab         JupyterLab on the notebooks
# Each sets up what it needs first, in its own .venv. Needed beforehand: git, make and Python 3.11, 3.12 or 3.13.

SHELL := /bin/bash

PROFILE ?= quick
DATA ?= synthetic
SEED ?= 0
DEVICE ?= auto
# By default runs/<profile>-<data>, beneath FACENB_RUNS where that is set.
RUN_FOLDER ?=
# Notebooks that run at a time share the cores (and queue for the GPU): see notebooks/Snakefile.
CORES ?=
# Further arguments to Snakemake, for instance SNAKEMAKE="--executor slurm --jobs 20".
SNAKEMAKE ?=
# Processes that share the tests, and further arguments to pytest, for instance TESTS="-k raster".
WORKERS ?= 2
TESTS ?=

VENV ?= .venv
BIN := $(VENV)/bin/python
READY := $(VENV)/.ready

# Real data sets and released networks are looked for in a mirror folder first: FACENB_MIRROR, or one beside the checkout.
ifeq ($(strip $(FACENB_MIRROR)),)
FACENB_MIRROR := $(wildcard $(abspath $(CURDIR)/../shared/mirror))
endif
export FACENB_MIRROR

# Parts of `make reference`, all if empty: see facenb/reference/__main__.py.
PART ?=

# How long torch's idle threads spin before they sleep (GNU OpenMP). By default they hold the cores for milliseconds
# that the renderer's own threads want: pictures take a sixth longer.
export GOMP_SPINCOUNT ?= 20000

# The first Python of a supported version that can make a virtual environment; PYTHON=... chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$python; break; }; done)

# The other folders are made absolute once: kernels work in notebooks/, where a relative path would be another folder.
absolute = $(if $($(1)),$(shell $(PYTHON) -c 'import os, sys; print(os.path.abspath(os.path.expanduser(sys.argv[1])))' "$($(1))"))
export FACENB_DATA := $(call absolute,FACENB_DATA)
export FACENB_RUNS := $(call absolute,FACENB_RUNS)

.PHONY: help notebooks reference test test-slow lab bench outputs lint format clean setup
.DEFAULT_GOAL := help

help:
	@sed -n '1,4s/^# //p' Makefile

setup: $(READY)

# A stamp that is written last: a set-up that was interrupted is taken up again.
# torch goes first and by exact version: where the machine offers a small build without CUDA beside the public one
# (pip's find-links or an index of its own), that is the one taken.
$(READY): constraints.txt pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "facenb needs Python 3.11, 3.12 or 3.13 with venv, and none is on the PATH" \
	  "(python3 is $$(python3 --version 2>&1)). Install one (Debian, Ubuntu: python3-venv goes with it)," \
	  "then: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "facenb needs Python 3.11, 3.12 or 3.13, and PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1)" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version), a few minutes the first time ..."
	@$(BIN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN) -m pip install -qq --upgrade pip
	@$(BIN) -m pip install -qq "$$(grep '^torch==' constraints.txt)"
	@$(BIN) -m pip install -qq -c constraints.txt -e '.[photos,batch,dev]'
	@touch $@

notebooks: $(READY)
	@$(BIN) -m facenb run all --profile $(PROFILE) --data $(DATA) --seed $(SEED) --device $(DEVICE) \
	  $(if $(RUN_FOLDER),--run-folder "$(RUN_FOLDER)") $(if $(CORES),--cores $(CORES)) $(if $(SNAKEMAKE),-- $(SNAKEMAKE))

# pytest runs, and ends with its summary, whatever ruff finds.
test: $(READY)
	@$(MAKE) --no-print-directory lint; style=$$?; \
	OMP_NUM_THREADS=1 $(BIN) -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(TESTS) && exit $$style

# Whole runs of the notebooks, nbval on 01 to 03, and a real browser.
test-slow: $(READY)
	@$(BIN) -m pytest -m slow $(TESTS)

lint: $(READY)
	@$(BIN) -m ruff check .
	@$(BIN) -m ruff format --check .

format: $(READY)
	@$(BIN) -m ruff check --fix .
	@$(BIN) -m ruff format .

# The reference trainings: about ten hours on two cores, taken up again after a stop. PART names one of them.
reference: $(READY)
	@$(BIN) -m facenb.reference $(PART) --data $(DATA) --device $(DEVICE)

lab: $(READY)
	@$(BIN) -m jupyterlab --notebook-dir=notebooks

# Store the outputs of a whole run in the notebooks, before changed ones are committed.
outputs: $(READY)
	@$(BIN) course/store.py $(or $(RUN_FOLDER),runs/quick-synthetic)

# Tables of speed; alone on the machine, or the figures say little. benchmarks/RESULTS.md keeps them.
bench: $(READY)
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN) "$$script"; done

# Executed notebooks, results and data stay; remove runs/ by hand.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
