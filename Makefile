# make demo | test | test-floor | test-latest | gpu | check | mutants | kills | fuzz | format | clean.  Python 3.11 or newer: `make demo PYTHON=python3.12` chooses one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

RECIPE ?= recipes/exp4_specnorm.py
ARGS ?=
# Processes of `make check`, `make mutants` and `make fuzz`, of one thread each.
WORKERS ?= 2

# Environments of the lowest and of the newest versions that pyproject.toml allows, and what runs in them.
FLOOR := .venv-floor
LATEST := .venv-latest
TESTS ?= tests/unit tests/contract tests/distributed tests/pipeline/test_launch.py tests/pipeline/test_resume.py tests/pipeline/test_tracking.py
# A cut of some minutes, which CI runs at the floor: checkpoints, the models of diffusers, every strategy, the smoke pipeline, submitit.
SHORT := tests/unit/test_versions.py tests/unit/test_checkpoint.py tests/unit/test_door.py tests/unit/test_diffusers_checkpoints.py \
	tests/distributed/test_adv_norm_ranks.py tests/pipeline/test_launch.py::test_the_whole_smoke_pipeline_leaves_what_the_contract_names \
	tests/cluster/test_local.py::test_a_sweep_runs_on_this_machine_and_is_done_the_second_time

.PHONY: help setup demo test test-floor test-latest test-floor-short gpu slurm check mutants kills fuzz format clean

help:
	@echo "make setup    create $(VENV) and install the project with its development tools"
	@echo "make demo     setup, then $(RECIPE) at the scale that fits this machine (RECIPE=..., ARGS='--scale smoke')"
	@echo "make test     setup, then every test that needs no special machine (ARGS='-m \"not slow\"')"
	@echo "make test-floor   unit, contract, parity and smoke tests with the lowest versions that pyproject.toml allows"
	@echo "make test-latest  the same with the newest versions (remove $(LATEST) to look for newer ones)"
	@echo "make gpu      setup, then tests and benchmarks that need a CUDA device, in ten minutes (ARGS='--only sync --budget-min 3')"
	@echo "make slurm    setup, then the tests that bring up a SLURM of their own (minutes; Debian's packages, root)"
	@echo "make check    setup, then format check, lint, types and all tests that this machine can run, as CI does (WORKERS=2)"
	@echo "make mutants  setup, then bugs put in one by one, each of which a test must see (minutes; ARGS='engine' for a group)"
	@echo "make kills    setup, then a hundred kills, after which the same command must give the same bytes (half an hour)"
	@echo "make fuzz     setup, then thousands of hostile and damaged inputs, none of which may hurt (minutes; ARGS='--kind shards')"
	@echo "make format   write the format and the fixable lint"
	@echo "make clean    remove caches and builds; keeps the environments, runs/ and cache/"

setup: $(INSTALLED)

# The stamp is newer than pyproject.toml exactly when what is installed is what it asks for.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e ".[dev]"
	@touch $@

demo: setup
	$(BIN)/python -m ladd_dist.launch $(RECIPE) $(ARGS)

test: setup
	$(BIN)/python -m pytest -m "not gpu and not slurm" $(ARGS)

test-floor: $(FLOOR)/.installed
	$(FLOOR)/bin/python -m pytest -m "not gpu and not slurm" $(TESTS) $(ARGS)

test-floor-short: TESTS = $(SHORT)
test-floor-short: test-floor

test-latest: $(LATEST)/.installed
	$(LATEST)/bin/python -m pytest -m "not gpu and not slurm" $(TESTS) $(ARGS)

$(FLOOR)/.installed: RESOLUTION = lowest-direct
$(LATEST)/.installed: RESOLUTION = highest
# uv, because pip has no resolution to the lowest versions.
$(FLOOR)/.installed $(LATEST)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install -q uv
	$(@D)/bin/uv pip install -q --python $(@D)/bin/python --resolution $(RESOLUTION) -e ".[dev]"
	@touch $@

gpu: setup
	$(BIN)/python -m benchmarks.gpu $(ARGS)

slurm: setup
	$(BIN)/python -m pytest -m slurm $(ARGS)

check: setup
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -m "alone and not gpu"
	$(BIN)/python -m pytest -m "not alone and not gpu" -n $(WORKERS) $(ARGS)

mutants: setup
	PYTHONPATH=tests $(BIN)/python -m mutants --workers $(WORKERS) $(ARGS)

kills: setup
	PYTHONPATH=. $(BIN)/python tests/kills.py $(ARGS)

fuzz: setup
	PYTHONPATH=tests $(BIN)/python -m fuzz --workers $(WORKERS) $(ARGS)

format: setup
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

clean:
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
