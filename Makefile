# Every command of the project; CONTRIBUTING.md says when to use which. `make demo` and `make test` need Linux, Python
# 3.10-3.13 with its headers and venv, and a C++17 compiler. They install everything else into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = '$(abspath $(VENV))/bin'
# Facts from pyproject.toml, for recipes that run after $(VENV)/build.
FACT = $(shell $(BIN)/python cmake/pyproject.py $(1))
MINORS = $(call FACT,minors)
TENSORFLOW = $(lastword $(MINORS))
ENDS = $(firstword $(MINORS)) $(TENSORFLOW)
THIS = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# A compiler cache is used if there is one.
export CMAKE_CXX_COMPILER_LAUNCHER ?= $(shell command -v ccache)

.PHONY: demo test test-fast dev lint lint-fast format docs fuzz sanitize bench pictures gpu ptx wheels reproducible matrix ends ends-wheels release clean

# The package as it is installed; after `make dev`, the checkout itself.
LROPS = $(if $(wildcard $(VENV)/editable),dev,$(VENV)/installed)
PIP = $(BIN)/python -m pip install --quiet
# pytest runs in $(VENV), so that `import lrops` finds what is installed there and not the folder of that name here.
PYTEST = cd '$(VENV)' && $(BIN)/python -m pytest -n 2 -c '$(CURDIR)/pyproject.toml'

demo: $(LROPS) $(VENV)/demo  ## trains a small Vision Transformer three times; writes demo/vit.png
	cd '$(VENV)' && $(BIN)/python '$(CURDIR)/examples/train_vit.py' --output '$(CURDIR)/demo/vit.png'

test: $(LROPS) $(VENV)/test  ## every test that this machine can run; ARGS="-k name" for some of them
	$(PYTEST) '$(CURDIR)/tests' $(ARGS)

test-fast: $(LROPS) $(VENV)/test  ## what a change breaks first, in a minute
	$(PYTEST) -m 'not slow' '$(CURDIR)/tests' $(ARGS)

# The build tree stays, so CMake rebuilds what a change touched.
CMAKE = PATH=$(BIN):"$$PATH" cmake -G Ninja -S . -DPython_EXECUTABLE=$(BIN)/python \
  -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" $(call FACT,cmake)
dev: $(VENV)/test  ## installs the checkout itself; after a change of C++, run it again
	$(CMAKE) -B build/dev -DCMAKE_INSTALL_PREFIX='$(CURDIR)' --log-level=WARNING
	rm -rf lrops/_tf*
	PATH=$(BIN):"$$PATH" cmake --build build/dev --target install
	test ! -f $(VENV)/installed || { $(BIN)/python -m pip uninstall --quiet --yes lrops; rm $(VENV)/installed; }
	echo '$(CURDIR)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lrops.pth"
	touch $(VENV)/editable

lint: lint-fast  ## style and types of Python and C++, and clang-tidy
	.lint/bin/clang-tidy --quiet tests/gpu/launcher.cc -- -std=c++17 -Icc
	.lint/bin/clang-tidy --quiet --checks='-clang-analyzer-*' cc/python/native.cc -- -std=c++17 -Icc \
	  -I"$$(.lint/bin/python -c 'import pybind11; print(pybind11.get_include())')" \
	  -I"$$(.lint/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')"  # 20 s less without the analyzer

lint-fast: .lint/installed  ## the same without clang-tidy, which takes most of the time; pre-commit runs it
	.lint/bin/ruff check . && .lint/bin/ruff format --check .
	.lint/bin/clang-format --dry-run --Werror $$(git ls-files '*.h' '*.cc' '*.cu')
	.lint/bin/mypy --cache-dir=.lint/mypy

format: .lint/installed
	.lint/bin/ruff format . && .lint/bin/ruff check --fix .
	.lint/bin/clang-format -i $$(git ls-files '*.h' '*.cc' '*.cu')

docs: .docs/installed  ## the documentation site, in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build --strict
	@echo "lrops: look at it with: $(PYTHON) -m http.server --directory build/site"

EXAMPLES = 20000
fuzz: $(LROPS) $(VENV)/test  ## searches for a curve or a damaged graph node that breaks a rule: EXAMPLES for each test
	export FUZZ_EXAMPLES=$(EXAMPLES) && $(PYTEST) '$(CURDIR)/tests/test_properties.py' $(ARGS)

# With its checks of null pointers, GCC rejects TensorFlow's headers: they compare functions in a constant expression.
# Python and TensorFlow do not free everything they allocate, so leaks are not reported. GCC's C++ runtime must be loaded
# before a sanitizer starts.
SANITIZE = -fsanitize=address,undefined,float-cast-overflow -fno-sanitize=null,nonnull-attribute,returns-nonnull-attribute
SANITIZED = '$(abspath $(VENV))/sanitized'
sanitize: $(LROPS) $(VENV)/test  ## runs the op, XLA and the module under AddressSanitizer and UBSan, and the formula under TSan too
	$(CMAKE) -B $(VENV)/sanitize -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_INSTALL_PREFIX=$(SANITIZED) \
	  -DCMAKE_CXX_FLAGS='$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer'
	$(BIN)/cmake --build $(VENV)/sanitize --target install
	cp lrops/*.py $(SANITIZED)/lrops
	$(PYTEST) '$(CURDIR)/tests/test_sanitizers.py'
	export LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(SANITIZED) && $(PYTEST) \
	  $(patsubst %,'$(CURDIR)/tests/test_%.py',concurrency decays exactness native properties saved_by_older tracing)

bench: $(LROPS) $(VENV)/test  ## compares a step's time with lrops, a constant rate and other schedules
	cd '$(VENV)' && $(BIN)/python '$(CURDIR)/benchmarks/overhead.py' $(BENCH_ARGS)

pictures: $(LROPS) $(VENV)/demo  ## draws docs/curves/*.png
	cd '$(VENV)' && $(BIN)/python '$(CURDIR)/tools/pictures.py'

# TensorFlow's CUDA build needs a separate environment: in $(VENV) it would overwrite tensorflow-cpu.
gpu: build/gpu/installed  ## on a machine with an NVIDIA GPU: runs tests/gpu and the doctor, and writes build/gpu.md for RESULTS.md
	cd build/gpu && bin/python '$(CURDIR)/benchmarks/gpu_overhead.py' --output '$(CURDIR)/build/gpu.md'
	cd build/gpu && bin/python -m lrops doctor
	cd build/gpu && bin/python -m pytest -c '$(CURDIR)/pyproject.toml' '$(CURDIR)/tests/gpu'

ptx: $(VENV)/build  ## compiles the CUDA kernel to cc/kernels/learning_rate.ptx, which is committed
	$(BIN)/python tools/ptx.py

wheels: $(VENV)/build  ## fills dist/: a wheel for each Python found, with the libraries of every TensorFlow minor, and the sdist
	$(BIN)/python tools/wheels.py

reproducible: $(VENV)/build  ## builds a wheel and the sdist twice, in folders of other names and without ccache, and compares
	rm -rf build/twice
	for clone in build/twice/a 'build/twice/some/other place'; do git clone --quiet . "$$clone" && \
	  CCACHE_DISABLE=1 $(BIN)/python "$$clone/tools/wheels.py" --python 3.11 --tensorflow $(ENDS) || exit; done
	diff -r build/twice/a/dist 'build/twice/some/other place/dist'

matrix: $(VENV)/build  ## tries the wheels of dist/ with each TensorFlow, in new environments; writes docs/compatibility.md
	$(BIN)/python tools/matrix.py $(MATRIX_ARGS)

ends-wheels: $(VENV)/build
	$(BIN)/python tools/wheels.py --python $(THIS) --tensorflow $(ENDS) --output build/ends

ends: ends-wheels  ## a small matrix for CI: the wheel for this Python, tried with the oldest and the newest TensorFlow
	$(BIN)/python tools/matrix.py --wheels build/ends \
	  --rows $(THIS):$(firstword $(ENDS)):tensorflow-cpu $(THIS):$(lastword $(ENDS)):tensorflow \
	  --errors 'no TensorFlow' --page build/ends/compatibility.md

release: $(VENV)/build  ## everything up to the upload: see docs/releasing.md
	test -z "$$(git status --porcelain)"  # a wheel must be of a commit
	grep -E '^## $(call FACT,version) [0-9]{4}-[0-9]{2}-[0-9]{2}$$' CHANGELOG.md  # with its date
	$(MAKE) lint test
	rm -rf dist
	$(MAKE) wheels reproducible matrix MATRIX_ARGS='--page build/compatibility.md'
	cd dist && sha256sum *.whl *.tar.gz > SHA256SUMS
	git tag --annotate 'v$(call FACT,version)' --message 'lrops $(call FACT,version)'

clean:
	rm -rf $(VENV) .lint .docs build dist demo *.egg-info lrops/_tf* lrops/*.so

# ---- The environments. pip installs again when pyproject.toml or a source has changed.
# The pip of a new environment may be too old for dependency groups.
ENVIRONMENT = $(PYTHON) -m venv $(1) && $(1)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
SOURCES = pyproject.toml setup.py lrops_command.py CMakeLists.txt $(shell find cmake cc lrops -type f ! -name '*.so' ! -name '*.pyc')
$(VENV)/installed: $(VENV)/tensorflow $(SOURCES)
	@echo 'lrops: compiling the op for TensorFlow $(TENSORFLOW) and installing lrops into $(VENV): 1 to 3 minutes'
	PATH=$(BIN):"$$PATH" $(PIP) --no-build-isolation .
	touch $@

$(VENV)/build: pyproject.toml
	$(call ENVIRONMENT,$(VENV))
	$(PIP) --group build
	touch $@

$(VENV)/tensorflow: $(VENV)/build
	@echo 'lrops: installing TensorFlow $(TENSORFLOW) into $(VENV): 1.6 GB of disk, 0.4 GB to download'
	$(PIP) $(call FACT,tensorflow)
	touch $@

$(VENV)/demo: $(VENV)/tensorflow
	@echo 'lrops: installing the libraries of the demo into $(VENV): 0.3 GB'
	$(PIP) --group demo
	touch $@

$(VENV)/test: $(VENV)/tensorflow
	@echo 'lrops: installing the libraries of the tests into $(VENV): 1 GB'
	$(PIP) --group test
	$(PIP) --no-deps 'tf_keras==$(TENSORFLOW).*'  # alone: it would bring a second TensorFlow
	# TensorFlow and Keras import these if they are installed, and so take almost twice as long to start. The processes
	# that the tests start name them in TESTS_WITHOUT.
	echo 'import os, sys; sys.modules.update(dict.fromkeys(os.environ.get("TESTS_WITHOUT", "").split()))' \
	  > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tests_without.pth"
	touch $@

build/gpu/installed: $(SOURCES)
	@echo 'lrops: installing TensorFlow with CUDA and lrops into build/gpu: several GB'
	$(call ENVIRONMENT,build/gpu)
	build/gpu/bin/python -m pip install --quiet '.[cuda]' --group test
	touch $@

.lint/installed .docs/installed: .%/installed: pyproject.toml
	$(call ENVIRONMENT,.$*)
	.$*/bin/python -m pip install --quiet --group $*
	touch $@
