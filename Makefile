# The commands of the project. `make demo` and `make test` need Python 3.10-3.13 with its headers and venv, and a C++17
# compiler, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# What pyproject.toml says. A build in isolation is for the last of the minors.
MINORS = $(shell $(PYTHON) cmake/pyproject.py minors)
VERSION = $(shell $(PYTHON) cmake/pyproject.py version)
PYBIND11 = $(shell $(PYTHON) cmake/pyproject.py pybind11)
TENSORFLOW = $(lastword $(MINORS))
ENDS = $(firstword $(MINORS)) $(TENSORFLOW)
THIS = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
FACTS = $(foreach fact,VERSION COMMIT TENSORFLOW_VERSION COMPILER CUDA,-DLROPS_$(fact)='""')  # that CMake gives

.PHONY: demo test lint format fuzz sanitize bench wheel wheels reproducible matrix ends release clean

demo: $(VENV)/installed  ## trains a small Vision Transformer with and without warmup; writes demo/vit.png
	cd $(VENV) && bin/python '$(CURDIR)/examples/train_vit.py' --output '$(CURDIR)/demo/vit.png'

test: $(VENV)/installed  ## everything that can be tested without a GPU
	cd $(VENV) && bin/python -m pytest -n 2 '$(CURDIR)/tests' -c '$(CURDIR)/pyproject.toml' $(PYTEST_ARGS)

lint: $(VENV)/linters  ## style of Python and C++, and what can be said of it without running it
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.h' '*.cc' '*.cu')
	$(BIN)/mypy --cache-dir=$(VENV)/mypy
	$(BIN)/clang-tidy --quiet tests/native/stress.cc -- -std=c++17 -Icc
	$(BIN)/clang-tidy --quiet --checks='-clang-analyzer-*' cc/python/native.cc -- -std=c++17 -Icc \
	  -I"$$($(BIN)/python -c 'import pybind11; print(pybind11.get_include())')" \
	  -I"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')" \
	  $(FACTS)  # the analyzer takes 20 s for pybind11, and has seen the formula

format: $(VENV)/linters
	$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/clang-format -i $$(git ls-files '*.h' '*.cc' '*.cu')

SECONDS = 600
fuzz: $(VENV)/installed  ## looks for SECONDS for an input that breaks the rules, the formula or the op
	cd $(VENV) && LROPS_FUZZ_SECONDS=$(SECONDS) bin/python -m pytest -s -n 2 '$(CURDIR)/tests/test_fuzz.py' \
	  -c '$(CURDIR)/pyproject.toml'

# Python and TensorFlow do not free all that they allocate; GCC's C++ runtime has to be there before a sanitizer starts.
SANITIZED = '$(abspath $(VENV))/sanitized'
sanitize: $(VENV)/installed  ## the op, XLA and the module under AddressSanitizer and UBSan, the formula under TSan too
	PATH='$(abspath $(BIN))':$$PATH cmake -G Ninja -S . -B $(VENV)/sanitize -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DPython_EXECUTABLE='$(abspath $(BIN))/python' -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" \
	  -DLROPS_SANITIZE=address,undefined,float-cast-overflow -DCMAKE_INSTALL_PREFIX=$(SANITIZED)
	$(BIN)/cmake --build $(VENV)/sanitize --target install
	cp lrops/*.py $(SANITIZED)/lrops
	cd $(VENV) && bin/python -m pytest '$(CURDIR)/tests/test_sanitizers.py' -c '$(CURDIR)/pyproject.toml'
	cd $(VENV) && LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(SANITIZED) bin/python -m pytest -n 2 -c '$(CURDIR)/pyproject.toml' \
	  $(patsubst %,'$(CURDIR)/tests/test_%.py',exactness hardening native properties restarts saved_by_older tracing)

bench: $(VENV)/installed  ## what the schedule costs a step, against the others
	cd $(VENV) && bin/python '$(CURDIR)/benchmarks/overhead.py' $(BENCH_ARGS)

wheel: $(VENV)/python  ## dist/lrops-*.whl, for this Python and the TensorFlow of pyproject.toml
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

wheels:  ## dist/: a wheel for each Python found, each with every TensorFlow of pyproject.toml, and the sdist
	$(PYTHON) cmake/wheels.py

reproducible:  ## builds one wheel twice, in two folders and without ccache, and compares
	$(PYTHON) cmake/wheels.py --twice --python 3.11 --tensorflow $(ENDS)

matrix:  ## the wheels of dist/ beside each TensorFlow, in new environments; writes docs/compatibility.md
	$(PYTHON) tests/matrix.py $(MATRIX_ARGS)

ends:  ## what CI has time for: the wheel of this Python with the first and the last TensorFlow, beside each
	$(PYTHON) cmake/wheels.py --python $(THIS) --tensorflow $(ENDS) --output build/ends
	$(PYTHON) tests/matrix.py --wheels build/ends \
	  --rows $(THIS):$(firstword $(ENDS)):tensorflow-cpu $(THIS):$(lastword $(ENDS)):tensorflow \
	  --refusals 'no TensorFlow' --page build/ends/compatibility.md

release:  ## everything up to the upload: see docs/releasing.md
	test -z "$$(git status --porcelain)"  # a wheel must be of a commit
	grep -E '^## $(VERSION) [0-9]{4}-[0-9]{2}-[0-9]{2}$$' CHANGELOG.md  # with its date
	$(MAKE) lint test
	rm -rf dist
	$(MAKE) wheels reproducible matrix MATRIX_ARGS='--page build/compatibility.md'
	cd dist && sha256sum *.whl *.tar.gz > SHA256SUMS
	git tag --annotate 'v$(VERSION)' --message 'lrops $(VERSION)'

# The package is built and installed anew where a file of it has changed. Commands run from inside $(VENV), so that
# the installed package is what they import, and not the folder of the same name here.
SOURCES = pyproject.toml setup.py CMakeLists.txt $(wildcard cmake/*.* cc/*/* lrops/*.py*)
$(VENV)/installed: $(VENV)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[cpu,test]'
	$(BIN)/python -m pip install --quiet --no-deps 'tf_keras==$(TENSORFLOW).*'  # it would bring the other TensorFlow
	-$(BIN)/python -m pip install --quiet --only-binary=:all: 'atheris>=2.3'  # libFuzzer; from source it needs clang
	touch $@

$(VENV)/linters: $(VENV)/python
	$(BIN)/python -m pip install --quiet ruff==0.17.6 clang-format==23.1.5 clang-tidy==23.1.4 mypy==2.4.1 numpy==2.2.6 '$(PYBIND11)'
	touch $@

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	touch $@

clean:
	rm -rf $(VENV) build dist demo *.egg-info
