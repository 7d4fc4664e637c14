# Two commands for a fresh machine: `make demo` and `make test`. Needed: Python >= 3.11, a C++ compiler; nvcc is optional.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
TORCH ?= torch==2.14.1 torchvision==0.29.1
# Idle threads yield instead of spinning: on a machine shared with other work, training is then several times faster.
export OMP_WAIT_POLICY ?= passive
# The CUDA kernels are built for the CPU, too: the tests run them there.
export MMCUDA_SIMT ?= ON

.PHONY: setup demo test bench sanitize ptx-check ptx-profile oldest-torch gpu-static gpu-check lint format clean
.DELETE_ON_ERROR:

setup: $(VENV)/installed

# torch first, so that the extension is built against it and nothing installs a second one
$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet scikit-build-core pybind11 cmake ninja
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml CMakeLists.txt $(NATIVE)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

# A demo that was interrupted continues; delete runs/demo to start anew.
demo: setup
	$(BIN)/mmcuda train --out runs/demo --resume

test: setup
	$(BIN)/python -m pytest -m "not slow"

# On an idle machine, with threads that spin as they do by default. The table of targets comes last. Its results, the
# chart and benchmarks/README.md are kept in git.
bench: setup
	mkdir -p benchmarks/results
	env -u OMP_WAIT_POLICY $(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-json benchmarks/results/suite.json
	env -u OMP_WAIT_POLICY $(BIN)/python benchmarks/floor.py
	env -u OMP_WAIT_POLICY $(BIN)/python benchmarks/targets.py
	$(BIN)/python benchmarks/chart.py

# The kernels and their host code under the address and undefined-behaviour sanitizers, then under that for races.
# -S -P: without the site's import hooks, and without the working folder, which would import the other extension.
comma := ,
SITE = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
SANITIZED = PYTHONPATH=build/sanitize/$(1):$(SITE) $(2) LD_PRELOAD="$$(gcc -print-file-name=$(3)) $$(gcc -print-file-name=libstdc++.so)" \
  $(BIN)/python -SP -m pytest -q -p no:cacheprovider python_tests/test_sanitized.py
sanitize: setup
	for kind in address,undefined thread; do \
	  rm -rf build/sanitize/$$kind; \
	  $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --target build/sanitize/$$kind \
	    -C build-dir=build/sanitize/cmake-$$kind -C cmake.define.MMCUDA_SANITIZE=$$kind \
	    -C cmake.define.MMCUDA_CUDA=OFF . || exit 1; \
	done
	$(call SANITIZED,address$(comma)undefined,ASAN_OPTIONS=detect_leaks=0,libasan.so)
	$(call SANITIZED,thread,TSAN_OPTIONS=ignore_noninstrumented_modules=1:atexit_sleep_ms=0,libtsan.so)

PTX := build/ptx/libkernels.so
LAUNCHERS = $(BIN)/python benchmarks/gpu/launchers/compare.py $(PTX)
$(PTX): $(NATIVE)
	mkdir -p $(@D)
	nvcc -O3 -std=c++20 -lineinfo -cudart shared -shared -Xcompiler -fPIC --no-compress \
	  -gencode arch=compute_80,code=compute_80 csrc/cuda/launch*.cu csrc/simt/entry.cpp -o $@

# The PTX that nvcc made of the kernels, run on the CPU by ptxemu and compared with NumPy: every kernel, also for races.
ptx-check: setup
ifndef PTXEMU
	@echo "ptx-check is skipped: PTXEMU is not set to the folder of ptxemu"
else
	$(MAKE) $(PTX)
	for seed in 1 2 3; do $(PTXEMU)/run --seed $$seed $(PTX) -- $(LAUNCHERS) --seed $$seed || exit 1; done
	$(PTXEMU)/run --tsan $(PTX) -- $(LAUNCHERS)
endif

# How often the PTX uses each unit, on tiles that are full: the table of csrc/cuda/README.md.
ptx-profile: setup
ifndef PTXEMU
	@echo "ptx-profile is skipped: PTXEMU is not set to the folder of ptxemu"
else
	$(MAKE) $(PTX)
	for dtype in bfloat16 tf32 float32; do for d in 64 128 256; do \
	  $(PTXEMU)/run --profile --stats=build/ptx/profile-$$dtype-1024x$$d.json $(PTX) -- \
	    $(LAUNCHERS) --dtype $$dtype --shape 1024x$$d || exit 1; \
	done; done
	$(BIN)/python benchmarks/gpu/static/ptx_profile.py build/ptx/profile-*.json
endif

# The sources against the headers of the oldest torch that is allowed. They are the same in every wheel; that for macOS is
# the smallest.
OLDEST := $(shell sed -n 's/^dependencies = \["torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)
OLD_HEADERS := $(VENV)/torch-$(OLDEST)
$(OLD_HEADERS): $(VENV)/torch
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --platform macosx_11_0_arm64 \
	  --dest $@.wheel torch==$(OLDEST)
	$(BIN)/python -m zipfile --extract $@.wheel/*.whl $@.part
	rm -r $@.wheel
	mv $@.part $@
oldest-torch: $(OLD_HEADERS)
	for source in csrc/ops.cpp csrc/cpu/*_cpu.cpp csrc/cuda/*_cuda.cpp; do for kernels in USE_CUDA MMCUDA_SIMT; do \
	  $(CXX) -fsyntax-only -std=c++20 -Wno-attributes -D$$kernels -D$(shell grep -o 'TORCH_TARGET_VERSION=0x[0-9a-f]*' CMakeLists.txt) \
	    -isystem $(OLD_HEADERS)/torch/include $$source || exit 1; \
	done; done

# What the compiler made of the kernels for each architecture: registers, spills, instruction counts.
gpu-static: setup
	$(BIN)/python benchmarks/gpu/static/check.py $$($(BIN)/python -c 'import mmcuda._C; print(mmcuda._C.__file__)')

# Are the kernels right, and how fast: everything that one GPU can tell within eight minutes. No network is needed, and no
# setup: torch, nvcc, CMake and what builds the extension must be there. `python benchmarks/gpu/report.py $(OUT)` makes tables.
OUT ?= build/gpu-check
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu/check.py $(OUT) --seconds 470

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

clean:
	rm -rf $(VENV) build runs
