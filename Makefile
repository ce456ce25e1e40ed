# Everything a clean clone needs: python >= 3.11, git and make. uv is used when it is there, venv + pip otherwise.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test conformance check bench clean

demo: $(READY)
	@$(BIN)/storyloop demo

test: $(READY)
	@$(BIN)/python tests/real_agents/agent_clis.py --told
	$(BIN)/python -m pytest -n auto --dist worksteal

# The real agent CLIs, in pinned versions, against the scripted model: some 2 GB in a cache folder, once.
conformance: $(READY)
	@$(BIN)/python tests/real_agents/agent_clis.py
	$(BIN)/python -m pytest -n 2 tests/real_agents

check: $(READY)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.prompts
	$(BIN)/python -m benchmarks.streams

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("storyloop needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@if command -v uv >/dev/null 2>&1; then \
	    uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	    uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
	    uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
	    $(PYTHON) -m venv $(VENV) && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
