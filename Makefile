# make demo  – environment, a synthetic slide, the whole job on it
# make quick – environment, the quick tests
# make test  – environment, all tests
# make docs  – the documentation site, in build/site
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

DOCS = $(VENV)/.installed-docs

# Python keeps what it compiled, also where the environment says otherwise: a hundred processes would each compile it anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test quick docs serve-docs spelling lint-containers build lint format-check types check schemas viewer test-313 run-313 test-313-torch test-openings test-tiatoolbox clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $(STAMP)

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev,docs,containers]' -c constraints.txt
	touch $(DOCS)

demo: $(STAMP)
	$(BIN)/wsi-minugan demo -o demo-output

# What hypothesis draws is the same each time, so that the result depends on the code alone. pytest by itself draws anew.
SAME = --hypothesis-profile=ci

# A file of tests stays in one process, so that what it prepares is prepared once. In the order that tests/conftest.py gives,
# which has the longest first: otherwise the files with the fewest tests, which are the slowest, come last. One process more
# than there are cores, since tests of runs often wait for another process.
PROCESSES ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN || echo 1) + 1)))
SIDE_BY_SIDE = -n $(PROCESSES) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(SAME)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not alone"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SAME) -m alone

# What needs no other process and no real data: while you write.
quick: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m quick

# Packages whose docstrings are complete. Left out is training's cli: all that is public there are commands, whose docstrings
# are the help that click shows. In jobs/minugan_cli only main.py holds commands; pyproject.toml excludes it.
ROOMS = data sampling fitting evaluation classification importing packs paper
DOCUMENTED = jobs/minugan_cli jobs/minugan_jobs jobs/minugan_jobs/state jobs/minugan_jobs/clusters \
  training/minugan_training $(ROOMS:%=training/minugan_training/%) \
  wsi_minugan $(filter-out %/__pycache__,$(patsubst %/__init__.py,%,$(wildcard wsi_minugan/*/__init__.py wsi_minugan/*/*/__init__.py)))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -m numpydoc lint $(wildcard $(DOCUMENTED:=/*.py))

format-check: $(STAMP)
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

docs: $(DOCS)
	$(BIN)/mkdocs build --strict -d build/site
	$(BIN)/python docs/scripts/links.py build/site

serve-docs: $(DOCS)
	$(BIN)/mkdocs serve

spelling: $(DOCS)
	$(BIN)/codespell

lint-containers: $(DOCS)
	$(BIN)/hadolint Dockerfile

build: $(DOCS)
	rm -rf dist
	$(BIN)/python -m build

check: lint format-check types test

# Another Python. PyPI's torch for it is a CUDA build of several GB, which a new machine would spend minutes on. So this runs
# what needs no torch, in an environment that holds the wheel, its other dependencies and what the tests import.
PYTHON313 ?= $(shell for p in python3.13 $(HOME)/.pyenv/versions/3.13*/bin/python3.13; do \
	"$$p" -c "" 2> /dev/null && command -v "$$p" && break; done)
PIP313 = .venv-313/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt

test-313: build
	@test -n "$(PYTHON313)" || echo "There is no Python 3.13 here, so its tests skip."
	@test -z "$(PYTHON313)" || $(MAKE) --no-print-directory run-313

run-313:
	"$(PYTHON313)" -m venv --clear .venv-313
	$(PIP313) $$($(BIN)/python .ci/requirements.py --extra test --without torch)
	$(PIP313) --no-deps dist/*.whl
	OMP_NUM_THREADS=1 .venv-313/bin/python -m pytest $(SIDE_BY_SIDE) -m quick tests/counting tests/segmentation tests/slides tests/outputs tests/review

# The same environment with torch: the whole job on a synthetic slide, and the Python API.
test-313-torch: test-313
	$(PIP313) torch==2.13.0
	mkdir -p build
	cd build && ../.venv-313/bin/wsi-minugan doctor && ../.venv-313/bin/wsi-minugan demo -o demo-313
	OMP_NUM_THREADS=1 .venv-313/bin/python -m pytest tests/test_api.py

schemas: $(STAMP)
	$(BIN)/python -m wsi_minugan.schemas
	$(BIN)/minugan-train data schema -o schemas/index-row.schema.json

# The page of wsi-minugan view; what it makes is committed, so that no one else needs node.
viewer:
	cd wsi_minugan/viewer/frontend && npm ci --no-audit && npm run -s check

# TIAToolbox 2.1 pins older versions than constraints.txt names, so it has an environment of its own. It also pins torch below 2.13,
# which PyPI has with gigabytes of CUDA only. So torch, torchvision and OpenCV are ours, and all else is as its metadata says.
# PyPI's torchvision is built for CUDA: beside a torch without, its compiled operators do not load, and two declarations of them
# stop its import. Nothing here uses these operators, so the declarations are taken out.
# TIAToolbox's annotation store needs a sqlite3 that loads extensions: that of Debian's Python does, that of pyenv's does not.
LOADS_EXTENSIONS = import ensurepip, sqlite3, sys; sqlite3.Connection.enable_load_extension; assert sys.version_info >= (3, 11)
PYTHON_TIATOOLBOX ?= $(or $(shell for p in $(PYTHON) /usr/bin/python3; do \
	"$$p" -c "$(LOADS_EXTENSIONS)" 2> /dev/null && echo "$$p" && break; done),$(PYTHON))
IN_TIATOOLBOX = .venv-tiatoolbox/bin/python
PIP_TIATOOLBOX = $(IN_TIATOOLBOX) -m pip install -q --disable-pip-version-check
NEEDED = from importlib.metadata import requires as r; \
	print(*(n for n in r("tiatoolbox") if not n.startswith(("torch", "opencv-python"))), sep="\n")

.venv-tiatoolbox/.installed: pyproject.toml
	$(PYTHON_TIATOOLBOX) -m venv --clear .venv-tiatoolbox
	$(PIP_TIATOOLBOX) torch==2.13.0
	$(PIP_TIATOOLBOX) --no-deps torchvision==0.28.0 'tiatoolbox>=2.1,<2.2'
	sed -i '/^@torch.library.register_fake/d' .venv-tiatoolbox/lib/python3*/site-packages/torchvision/_meta_registrations.py
	$(IN_TIATOOLBOX) -c '$(NEEDED)' > .venv-tiatoolbox/requirements.txt
	$(PIP_TIATOOLBOX) -r .venv-tiatoolbox/requirements.txt -e . 'opencv-python-headless<5' pytest pytest-timeout hypothesis
	touch $@

# napari and spatialdata bring many packages of their own, so they have an environment, too.
.venv-openings/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-openings
	.venv-openings/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0
	# spatialdata's xarray-schema still asks for pkg_resources, which setuptools 81 left out.
	.venv-openings/bin/python -m pip install -q --disable-pip-version-check -e '.[spatialdata,napari]' 'setuptools<81' duckdb xarray pytest pytest-timeout
	touch $@

test-openings: .venv-openings/.installed
	OMP_NUM_THREADS=1 QT_QPA_PLATFORM=offscreen .venv-openings/bin/python -m pytest tests/interop

test-tiatoolbox: .venv-tiatoolbox/.installed
	OMP_NUM_THREADS=1 $(IN_TIATOOLBOX) -m pytest -m tiatoolbox tests/slides tests/interop

clean:
	rm -rf .venv .venv-313 .venv-openings .venv-tiatoolbox demo-output build dist
