# Every target makes the virtual environment that it needs; the same targets run in CI.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= ssl-runs
export OMP_WAIT_POLICY ?= PASSIVE
# an image may forbid to write bytecode: every process of the tests would compile what it imports
unexport PYTHONDONTWRITEBYTECODE
# a process takes about a gigabyte; in the order of the tree long files do not come last
# one more than there are cores: some tests wait
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)
PARALLEL := --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: install demo format check test test-all docker clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install: .venv/installed        ## the virtual environment, from pyproject.toml

demo: .venv/installed           ## the main job on built-in data: pretrain, sweep, verdict
	$(BIN)/ssl-app pretrain --recipe recipes/digits.toml --out $(OUT)
	$(BIN)/ssl-app sweep --recipe recipes/digits.toml --out $(OUT)

format: .venv/installed         ## rewrite the files as the house writes them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: .venv/installed          ## format, lint, types, layers, words
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py tests/test_words.py tests/test_signatures.py

test: .venv/installed           ## the fast tests; the browser's too where Chromium is
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-all: .venv/installed       ## all tests
	$(BIN)/python -m pytest $(PARALLEL)

docker:                         ## the image; for a CPU-only build add TORCH_INDEX_URL=...
	docker build --file docker/Dockerfile --build-arg TORCH_INDEX_URL="$(TORCH_INDEX_URL)" --tag ssl-app .

clean:                          ## what make made
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
