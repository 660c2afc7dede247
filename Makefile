# Needs git, make and a Python >= 3.11 that can make virtual environments; the rest is installed below .venv/.
# Extra arguments go into ARGS: make test ARGS="-k name"

# The first that runs and is new enough. A name on PATH may be a launcher for a version that is not installed, so each
# one is tried. Override with `make PYTHON=/path/to/python test`.
PYTHON_CANDIDATES = python3 python3.15 python3.14 python3.13 python3.12 python3.11 \
	"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/*/bin/python3 \
	"$${UV_PYTHON_INSTALL_DIR:-$$HOME/.local/share/uv/python}"/*/bin/python3
PYTHON ?= $(shell for python in $(PYTHON_CANDIDATES); do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
DEV = $(or $(PYTHON),$(error No Python >= 3.11 found. Install one, or name it: make PYTHON=/path/to/python $@)) scripts/dev.py

ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format typecheck soak worlds reports digests bench findings lock clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## make a virtual environment for every Python >= 3.11 found
	@$(DEV) setup

demo: ## run the demonstration (ARGS="--redis-url redis://...")
	@$(DEV) demo $(ARGS)

test: ## lint, typecheck, then pytest on every Python >= 3.11 found; what CI runs (ARGS="-k name")
	@$(DEV) test $(ARGS)

test-all: ## every test on every Python and server found, and the long ones; an hour (ARGS="-k name")
	@$(DEV) test-all $(ARGS)

lint: ## check format and style
	@$(DEV) lint

format: ## fix format and style
	@$(DEV) format

typecheck: ## mypy and basedpyright
	@$(DEV) typecheck

soak: ## node processes and a server under faults, judged (ARGS="--minutes 60 --seed 7")
	@$(DEV) soak $(ARGS)

worlds: ## every state that a few moves lead to, judged; some minutes (ARGS="ring --depth 6")
	@$(DEV) worlds $(ARGS)

reports: ## write conformance/reports/ anew
	@$(DEV) reports

digests: ## write anew what simulated runs are held to, after a change of rules, nodes or workload
	@$(DEV) digests

bench: ## ours and its peers side by side (ARGS="--quick --html bench.html"; ARGS=--help)
	@$(DEV) bench $(ARGS)

findings: ## check that packages of others still behave as findings/ records
	@$(DEV) findings

# The only target that needs uv: it alone resolves for all supported Pythons and platforms at once. hiredis stays out:
# once it is installed, redis-py uses its parser everywhere, and the default one would go untested.
lock: ## renew requirements/dev.txt (needs uv; ARGS="--upgrade")
	uv pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock" \
		--extra cli --extra conformance --extra embedded --group dev \
		--output-file requirements/dev.txt $(ARGS) pyproject.toml

clean: ## remove environments, caches and built files
	@$(DEV) clean
