# Two commands do everything, set-up included: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where the torch wheel comes from, as pip options. The plain wheel is a CUDA build of gigabytes on Linux:
#   make demo TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"
TORCH_INDEX ?=
# Which QuPath `make qupath` fetches, and into which folder.
QUPATH ?= 0.6.0
QUPATH_INTO ?= build/qupath
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

# Real slides and projects that are not shipped; tests that want them skip when they are not there.
ifneq ($(wildcard ../shared/data/README.md),)
export WSI_PIPELINE_TESTDATA ?= $(abspath ../shared/data)
endif

.PHONY: help venv demo test test-slow check format bench bench-long qupath clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

venv: $(VENV)/.ready ## the virtual environment, pinned

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[openvino,test,check]'
	touch $@

demo: venv ## the whole main job on a small real cohort, into build/demo
	$(BIN)/wsi-pipeline demo --output build/demo

test: venv ## the quick tests
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: venv ## the slow tests
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

check: venv ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: venv ## rewrite to the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: venv ## what reading, regions, GeoJSON and QuPath files take, beside their limits and peers
	$(BIN)/python -m benchmarks.run

bench-long: venv ## the large cases: 130,000 regions, 100,000 px, a million blocks by extrapolation
	$(BIN)/python -m benchmarks.run --long

# The last line that paquo prints is where it put QuPath; pipefail, so that a download that failed is a failure here.
qupath: venv ## fetch QuPath (QUPATH=0.6.0) with paquo's own command, for the paquo backend
	mkdir -p $(QUPATH_INTO)
	set -o pipefail; $(BIN)/python -m paquo get_qupath --install-path $(QUPATH_INTO) $(QUPATH) | tee $(QUPATH_INTO)/fetched.txt
	@echo
	@echo "export PAQUO_QUPATH_DIR=$$(tail -n 1 $(QUPATH_INTO)/fetched.txt)"

clean: ## remove what was built
	rm -rf build dist
