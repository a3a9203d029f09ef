# make sample   set up, and enlarge photographs with the shipped checkpoint
# make demo     set up, and open a web page on this machine to try it on
# make figures  draw the README's figures and fill its tables from the files of results
# make test     set up, check and test

PYTHON ?= python3
VENV ?= .venv

.PHONY: sample demo figures test clean

sample: $(VENV)/.run
	$(VENV)/bin/python hrn/sample.py

demo: $(VENV)/.demo
	$(VENV)/bin/python -m hrn.demo

figures: $(VENV)/.run
	$(VENV)/bin/python tools/make_figures.py

test: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest

$(VENV)/.run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.demo: $(VENV)/.run pyproject.toml
	$(VENV)/bin/pip install --disable-pip-version-check -e '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.run pyproject.toml
	$(VENV)/bin/pip install --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
