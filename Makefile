# Two commands do everything: `make demo` and `make test`. Both make their own environment.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test clean

# The main job: train, fit, look, swap, forget, export. DATA=yinyang (default) or mnist.
DATA ?= yinyang
SEEDS ?= 1
COMPARE ?=
demo: $(INSTALLED)
	$(RUN)/python examples/demo.py --data $(DATA) --seeds $(SEEDS) $(if $(COMPARE),--compare)

# The whole check: format, lint, types, tests.
test: $(INSTALLED)
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/python -m pytest

$(INSTALLED): pyproject.toml setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
