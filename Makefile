# Two commands on a fresh machine with python3.11+, make and git:  make report   make test
PYTHON ?= $(shell command -v python3.13 || command -v python3.12 || command -v python3.11 || command -v python3)
STUDY ?= quickstart
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup report test check format

setup: $(READY)

# made again whenever the dependencies change
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"wakd_kit needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(READY)

report: $(READY)
	$(BIN)/wakd report $(STUDY)

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify --extra-keys "metadata.papermill metadata.widgets cell.metadata.papermill" notebooks/*.ipynb

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --extra-keys "metadata.papermill metadata.widgets cell.metadata.papermill" notebooks/*.ipynb
