# morphobench. `make help` lists the targets; README.md says what they do.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STUDY ?= demo
ASSAY ?= bbbc021
JOBS ?= 0
DEVICE ?= auto
export CELLPROFILER

SUITE := .venv/.installed
BENCH := .venv/bin/morphobench
ifeq ($(strip $(CELLPROFILER)),)
CP := .venv-cellprofiler/morphobench-installed.json
endif

.DEFAULT_GOAL := help
.PHONY: help setup data baseline cnn report test lint bench clean preflight preflight-cellprofiler

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  STUDY=$(STUDY)    which study: $(notdir $(basename $(wildcard benchmark/studies/*.yaml))), or your own YAML file"
	@echo "  ASSAY=$(ASSAY) which collection make data fetches: bbbc021, bbbc014, bbbc013"
	@echo "  JOBS=$(JOBS)        processes at once; 0 takes one for each core"
	@echo "  DEVICE=$(DEVICE)   where networks run: auto, cpu, cuda"
	@echo "  CELLPROFILER=  path of a cellprofiler command you have, instead of installing one"

# Said before anything long starts; once installed there is nothing left to check.
preflight:
	@test -f $(SUITE) || "$(PYTHON)" benchmark/base/preflight.py suite

preflight-cellprofiler:
	@test -n "$(CP)" -a -f "$(CP)" || "$(PYTHON)" benchmark/base/preflight.py cellprofiler

$(SUITE): pyproject.toml | preflight
	@echo "Installing the suite into .venv (about 6 GB, a few minutes)"
	@"$(PYTHON)" -m venv .venv
	@.venv/bin/pip install -q -e '.[dev]' 2> .venv/pip.log || { grep -v '^WARNING: Location' .venv/pip.log; exit 1; }
	@touch $@

$(CP): pipelines/cellprofiler-requirements.txt | preflight-cellprofiler $(SUITE)
	@$(BENCH) setup

setup: preflight preflight-cellprofiler $(SUITE) $(CP)  ## Install the suite and CellProfiler, each in its own environment

data: preflight $(SUITE)  ## Fetch the images of ASSAY into MORPHOBENCH_DATA (PLATES=a,b for some plates only)
	@$(BENCH) assay fetch "$(ASSAY)" $(if $(PLATES),--plates "$(PLATES)")

baseline: preflight preflight-cellprofiler $(SUITE) $(CP)  ## Run CellProfiler headless on STUDY and classify its profiles
	@$(BENCH) baseline "$(STUDY)" --jobs $(JOBS)

cnn: preflight $(SUITE)  ## Cache the crops of STUDY and run its networks
	@$(BENCH) cnn "$(STUDY)" --jobs $(JOBS) --device $(DEVICE)

report: preflight preflight-cellprofiler $(SUITE) $(CP)  ## Do all that is missing of STUDY, compare, render the page
	@$(BENCH) report "$(STUDY)" --jobs $(JOBS) --device $(DEVICE)

lint: preflight $(SUITE)  ## Check style and types
	.venv/bin/ruff check .
	.venv/bin/mypy

# A file of tests at a time to each of two processes, one thread each: two PyTorch processes with two starve each other.
test: lint preflight-cellprofiler $(CP)  ## Run the tests (FAST=1 leaves out the slow ones)
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		$(if $(FAST),-m "not slow") $(ARGS)

bench: preflight preflight-cellprofiler $(SUITE) $(CP)  ## Print how fast the parts are, as ratios to named rivals
	@$(BENCH) bench "$(STUDY)"

clean:  ## Remove the environments and caches; finished runs and reports stay
	rm -rf .venv .venv-cellprofiler build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
