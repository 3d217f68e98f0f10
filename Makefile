# Two commands for a machine that has Python and a package registry: `make demo` and `make test`.
# PYTHON chooses the interpreter, TORCH the build (TORCH="torch --index-url …").

PYTHON ?= python3
TORCH ?= torch torchvision
BIN := .venv/bin

demo: .venv/demo
	$(BIN)/python examples/cg3_mini/demo.py

test: .venv/test
	$(BIN)/python -m pytest -n 2 --dist worksteal

.venv/demo: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(TORCH)
	$(BIN)/pip install ".[builtin]"
	touch $@

.venv/test: .venv/demo
	$(BIN)/pip install ".[dev]"
	touch $@

.PHONY: demo test
