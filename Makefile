# Set-up is part of every target that needs it, and does nothing when nothing has changed.
#   PYTHON=/path/to/python3.12   another interpreter for the first set-up
#   SLIPWAY_HOME=/path           another state folder than .slipway
#   ARGS="-k upload"             more arguments for pytest; "-n 0" is one process

.DEFAULT_GOAL := help
.PHONY: help setup extras demo up test test-all check bench lock clean debian
.NOTPARALLEL:

py := .venv/bin/python
stamp := .venv/stamps
pytest := $(py) -m pytest -p no:valkey -n 2 --dist loadfile --no-loadscope-reorder
compile := .venv/bin/uv pip compile --python-version 3.11 --universal -q --no-header --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: setup ## train a model, push it, watch it promoted, pull and use it; then stop everything
	@$(py) -m stack run -- python -m examples.demo

up: setup ## everything in the foreground; Ctrl-C stops it
	@$(py) -m stack up

extras: setup $(stamp)/extras ## also install what the optional formats need (TensorFlow, ultralytics, timm, transformers, OpenVINO)

test-all: extras ## the whole suite and, on top, every format and the slow ones
	@$(pytest) --slow $(ARGS)

test: setup ## the whole suite on real services, in two processes
	@$(pytest) $(ARGS)

check: setup ## format, lint, types, import rules, architecture
	@$(py) -m ruff format --check .
	@$(py) -m ruff check .
	@$(py) -m mypy
	@.venv/bin/lint-imports
	@$(py) -m pytest -p no:valkey -q tests/architecture

bench: setup ## measure, inside the stack
	@$(py) -m stack run -- python -m benchmarks

setup: debian $(stamp)/project .venv-s3/stamp ## only the set-up

debian:
	@deploy/setup debian

$(stamp)/python: requirements/installer.txt
	@PYTHON='$(PYTHON)' deploy/setup python
	@mkdir -p $(stamp) && touch $@

$(stamp)/torch: $(stamp)/python
	@deploy/setup torch
	@touch $@

$(stamp)/requirements: requirements/all.txt $(stamp)/torch
	@deploy/setup requirements
	@touch $@

$(stamp)/project: pyproject.toml client/pyproject.toml $(stamp)/requirements
	@deploy/setup project
	@touch $@

$(stamp)/extras: requirements/extras.txt $(stamp)/requirements
	@deploy/setup extras
	@touch $@

.venv-s3/stamp: requirements/s3.txt $(stamp)/python
	@deploy/setup s3
	@touch $@

lock: $(stamp)/python ## resolve the pinned requirements anew (reads pyproject.toml; add ARGS=--upgrade)
	@$(compile) $(ARGS) pyproject.toml client/pyproject.toml --extra api --extra serving --extra worker --extra convert --extra ops --extra embedded --extra dev -o requirements/all.txt
	@$(compile) $(ARGS) pyproject.toml -c requirements/all.txt --extra convert --extra architectures --extra openvino --extra tensorflow --extra yolo --extra samples -o requirements/extras.txt
	@$(compile) $(ARGS) pyproject.toml --extra api -o requirements/api.txt
	@$(compile) $(ARGS) pyproject.toml --extra serving -o requirements/serving.txt
	@$(compile) $(ARGS) pyproject.toml --extra worker --extra convert --extra ops -o requirements/worker.txt
	@$(compile) $(ARGS) requirements/s3.in -o requirements/s3.txt
	@$(compile) $(ARGS) requirements/installer.in -o requirements/installer.txt

clean: ## remove environments and caches; the state folder stays
	@rm -rf .venv .venv-s3 .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info client/src/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Clean. The state (databases, models, secrets) is still in $${SLIPWAY_HOME:-.slipway}."
