# make sample   set up, and enlarge photographs with the shipped checkpoint
# make test     set up, check and test

PYTHON ?= python3
VENV ?= .venv

.PHONY: sample test clean

sample: $(VENV)/.run
	$(VENV)/bin/python hrn/sample.py

test: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest

$(VENV)/.run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.test: $(VENV)/.run pyproject.toml
	$(VENV)/bin/pip install --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
