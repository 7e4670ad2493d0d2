# Two commands on a machine that has only Python: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo test slow lint clean

demo: $(VENV)/.installed
	$(RUN) -m monai_landmark demo --out demo

test: $(VENV)/.installed-dev
	$(RUN) -m pytest

slow: $(VENV)/.installed-dev
	$(RUN) -m pytest -m "slow or not slow"

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo runs
