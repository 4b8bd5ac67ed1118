# Every target sets up what it needs, from nothing: Python 3.11 to 3.13 and a package index.
# Options: PROFILE=quick (a preview), GPU=1 (an NVIDIA GPU), PYTHON=python3.12.

SHELL := bash
BIN := .venv/bin
READY := .venv/ready-$(if $(GPU),gpu,cpu)
PROFILE ?= full
PORT ?= 8000
# Where `make book` puts the book of this profile.
SITE := _build/$(if $(filter quick,$(PROFILE)),quick/)html
export TRAINWELL_PROFILE := $(PROFILE)
export TF_CPP_MIN_LOG_LEVEL := 3
# Else TensorFlow leaves oneDNN off on processors without AVX-512: it rounds otherwise there, and
# convolutions take three times as long.
export TF_ENABLE_ONEDNN_OPTS ?= 1
# Pages and labs run in folders of their own: let a relative folder mean the same there.
ifneq ($(TRAINWELL_DATA),)
override export TRAINWELL_DATA := $(shell cd "$(TRAINWELL_DATA)" 2>/dev/null && pwd || echo "$(TRAINWELL_DATA)")
endif
# Some machines switch bytecode off: TensorFlow then takes 12 s to import instead of 4, every time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help book test lab serve notebooks release bench sabotage lint format relock clean

help:  ## list the targets
	@echo "Training Deep Networks Well"; echo
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  ##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 18
	@echo; echo "Options: PROFILE=quick (preview in minutes), GPU=1 (NVIDIA GPU), PYTHON=python3.12"

$(READY): requirements.lock pyproject.toml tools/setup.sh
	@GPU=$(GPU) PYTHON="$(PYTHON)" tools/setup.sh

book: $(READY)  ## build the book: _build/html/index.html (PROFILE=quick: a preview)
	@$(BIN)/python tools/book.py

test: $(READY)  ## all checks: style, types, the package, the chapters, the built site
	@tools/test.sh

lab: $(READY)  ## open the course in JupyterLab: a chapter opens as a notebook with a click
	@$(BIN)/jupyter lab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root)

serve:  ## show the built book on http://localhost:8000 (PORT=..., PROFILE=quick)
	@test -f $(SITE)/index.html || { echo "There is no $(SITE) yet: run 'make book PROFILE=$(PROFILE)' first."; exit 1; }
	@echo "http://localhost:$(PORT) (Ctrl+C stops it)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

notebooks: $(READY)  ## the chapters as notebooks for Colab: _build/notebooks
	@$(BIN)/python tools/notebooks.py

release: $(READY)  ## what people download: dist/ (SEED=4711 draws other held-back checks)
	@$(BIN)/python tools/release.py --seed $(or $(SEED),0)

bench: $(READY)  ## speed beside plain Keras, in one run
	@$(BIN)/python benchmarks/bench_fit.py
	@$(BIN)/python benchmarks/bench_grid.py
	@$(BIN)/python benchmarks/bench_mc_predict.py
	@$(BIN)/python benchmarks/bench_grading.py --no-keep

sabotage: $(READY)  ## swap the arms of every claim of the built book: each must fail
	@$(BIN)/python -m trainwell sabotage _build/claims.json

lint: $(READY)  ## style, types, spelling and prose only
	@tools/lint.sh

format: $(READY)  ## let ruff format the code and the chapters' cells
	@tools/lint.sh --fix

relock: $(READY)  ## renew requirements.lock from pyproject.toml
	@PATH="$(BIN):$$PATH" $(BIN)/python tools/lock.py

clean:  ## remove everything that was built, the environment too
	rm -rf _build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
