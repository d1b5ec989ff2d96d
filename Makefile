# Everything one does here, as targets. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := 0.13.9
DEMO := build/demo
LAB := build/lab
LOOP := build/loop
unexport PYTHONDONTWRITEBYTECODE
export UV_PYTHON_DOWNLOADS := never
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1

.PHONY: help setup lock demo loop-demo run test test-fast campaign lint notebooks nbval bench lab terraform clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or newer; got " + sys.version.split()[0] + ": set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)

$(VENV)/.ready: $(BIN)/uv requirements.lock pyproject.toml
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(VENV)/.ready ## make .venv with the locked packages; does nothing when that is done

lock: COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet
lock: $(BIN)/uv ## resolve pyproject.toml anew into requirements.lock (universal, hashed, no addresses), and service.lock from it
	$(COMPILE) pyproject.toml --all-extras -o requirements.lock
	$(COMPILE) --group pyproject.toml:service -c requirements.lock -o service.lock

demo: setup ## six synthetic months, end to end: shift, alarm, retrain, reports
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/demo $(DEMO)

loop-demo: setup ## the whole loop live: slow roads, alarm, event, retrain, swap, recovery; under 8 minutes on 2 quiet cores
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/loop-demo $(LOOP)

.PHONY: cloud-demo
cloud-demo: setup ## from an empty account on moto to a prediction traced to bytes: Terraform, images, months on S3 and PostgreSQL, a task that answers
	@rm -rf build/cloud-demo
	@$(BIN)/python -m benchmarks.cloud_demo --place build/cloud-demo $(CLOUD)

run: setup ## one month of the publisher's: make run SERVICE=green MONTH=2023-03
	@test -n "$(SERVICE)" -a -n "$(MONTH)" || { echo "expected: make run SERVICE=green MONTH=2023-03" >&2; exit 2; }
	$(BIN)/taxi run --service $(SERVICE) --month $(MONTH)

test: setup ## every test, the notebooks among them; those on real months where ../shared/data/tlc is there
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -p no:nbval
	$(MAKE) --no-print-directory nbval

test-fast: SLOW = $(shell grep -rl --include='test_*.py' '^pytestmark = .*mark\.slow' tests)
test-fast: setup ## the inner loop: under a minute
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m "not slow and not real" -n 3 --dist loadfile -p no:nbval -q $(SLOW:%=--ignore=%)

campaign: setup ## what the suite does once, often: 52 kills, 20 swaps, 500 experiments, 400 requests a route, 3,000 malformed ones; under 90 minutes
	TAXI_CAMPAIGN=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m campaign -p no:nbval --durations=0 --durations-min=1

lint: setup ## style, types, the order of the rooms, workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/zizmor --offline --quiet .github/workflows

build/checkov/.ready: $(VENV)/.ready terraform/checkov.lock
	$(BIN)/uv venv --quiet --clear build/checkov --python $(BIN)/python
	VIRTUAL_ENV=build/checkov $(BIN)/uv pip install --quiet --require-hashes -r terraform/checkov.lock
	@touch $@

terraform: setup build/checkov/.ready ## prove terraform/ without an account: form, rules, an apply on moto's server, costs, drift, checkov
	$(BIN)/python -m terraform.operate.prove

$(LAB)/.ready: $(VENV)/.ready params.yaml scripts/lab scripts/demo $(wildcard taxi/*.py taxi/*/*.py)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/lab $(LAB)
	@touch $@

notebooks: $(LAB)/.ready ## execute notebooks/ on the sample source and write their outputs back
	@. $(LAB)/env && $(BIN)/python -m taxi.runs.notebooks notebooks

nbval: $(LAB)/.ready ## check that the committed notebooks' outputs are what the code makes
	@. $(LAB)/env && $(BIN)/python -m pytest --nbval --nbval-current-env -p no:cacheprovider -q -n 2 --dist loadfile notebooks

bench: setup ## accuracy and speed beside the peers, growth, a month's seconds: make bench SOURCE=DIR [SERVICE=green]
	@test -n "$(SOURCE)" || { echo "expected: make bench SOURCE=folder or address in the TLC's layout" >&2; exit 2; }
	@mkdir -p build/bench
	$(BIN)/python -m benchmarks.accuracy --source "$(SOURCE)" --service $(or $(SERVICE),green) --months $(or $(MONTHS),2023-01:2023-06) --window 12 --out build/bench/accuracy.json --predictions build/bench/predictions.parquet
	$(BIN)/python -m benchmarks.speed --source "$(SOURCE)" --service $(or $(SERVICE),green) --month $(or $(MONTH),2023-03) --out build/bench/speed.json
	$(BIN)/python -m benchmarks.scale --out build/bench/scale.json
	$(BIN)/python -m benchmarks.drift --out build/bench/drift.json
	$(BIN)/python -m benchmarks.month --source "$(SOURCE)" --service $(or $(SERVICE),green) --month $(or $(MONTH),2023-03) --out build/bench/month.json

lab: $(LAB)/.ready ## JupyterLab on the notebooks, with sample months to play with
	@. $(LAB)/env && $(BIN)/jupyter lab --notebook-dir=notebooks

clean: ## remove what was built (never data/, reports/ or mlflow.db)
	rm -rf build $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
