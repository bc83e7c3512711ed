# Two commands on a fresh machine with python3.11+, make and git:  make report   make test
# the first that runs and is new enough; a name on the PATH may be a shim of a version that is not active
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
STUDY ?= quickstart
BIN := .venv/bin
READY := .venv/.ready
# pip resumes a download that broke off, which not every proxy serves; asked again it starts that one afresh
RETRY := retry() { for wait in 5 30 0; do "$$@" && return; [ $$wait = 0 ] || { echo "again in $$wait s: $$*"; sleep $$wait; }; done; return 1; }; retry

# uv where it is there, else pip; uv.lock, for `uv sync`, is one set of versions that fits
PIP := $(if $(shell command -v uv 2>/dev/null),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install)

# torch's CPU build, a third of the disk, on a Linux machine without an accelerator; where its index does not answer, what pip takes
CPU_TORCH := https://download.pytorch.org/whl/cpu
ANSWERS := import urllib.request as u; u.urlopen("$(CPU_TORCH)/torch/", timeout=5)

.PHONY: setup report test test-fast check format

setup: $(READY)

# made again whenever the dependencies change
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "wakd_kit needs Python 3.11 or newer and found none. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv"
	@$(if $(findstring uv ,$(PIP)),true,$(RETRY) $(PIP) --quiet --upgrade pip)
	@if test "$$(uname)" = Linux && ! command -v nvidia-smi >/dev/null && ! command -v rocm-smi >/dev/null && $(BIN)/python -c '$(ANSWERS)' 2>/dev/null; then \
		echo "no accelerator: torch's CPU build"; \
		$(PIP) --quiet --index-url $(CPU_TORCH) torch torchvision || echo "which could not be installed: pip takes its own"; fi
	@$(RETRY) $(PIP) --quiet --editable '.[test,workflow]'
	@touch $(READY)

report: $(READY)
	$(BIN)/wakd report $(STUDY)

# the long tests begin first (tests/conftest.py), and who is done takes from who is not; what is compiled is kept, for
# tests start processes; a long form may take longer than what hangs
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal \
	$(if $(WAKD_SLOW),-o faulthandler_timeout=0)

test: $(READY)
	$(PYTEST)

test-fast: $(READY)
	$(PYTEST) -m "not slow"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify --extra-keys "metadata.papermill metadata.widgets cell.metadata.papermill" notebooks/*.ipynb notebooks/lessons/*.ipynb

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --extra-keys "metadata.papermill metadata.widgets cell.metadata.papermill" notebooks/*.ipynb notebooks/lessons/*.ipynb

.PHONY: docs
# the documentation as a site, with pages of the API: site/index.html
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# the lessons, executed, as pages that the site links to: a few minutes the first time
.PHONY: lessons site
lessons: $(READY)
	$(BIN)/python docs/tools/lessons.py

# everything that a visitor can look at, as static files under site/
site: lessons docs

.venv/.docs: $(READY)
	$(PIP) --quiet $(if $(findstring uv ,$(PIP)),,--retries 1 --timeout 10) --editable '.[docs]'
	@touch $@
