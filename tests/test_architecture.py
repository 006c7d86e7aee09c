"""The house rules that a machine can check: which way includes and imports point, and what is banned."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CC = sorted(path for path in (ROOT / "cc").rglob("*") if path.suffix in (".h", ".cc", ".cu"))
PYTHON = sorted(
    path for folder in ("lrops", "examples", "benchmarks", "tests", "tools") for path in (ROOT / folder).rglob("*.py")
)

# Down the flow: a module may import only what comes after it.
FLOW = ["__main__", "doctor", "__init__", "benchmark", "callbacks", "_applied", "_log_files", "steps", "schedules"]
FLOW += ["_schedule", "plotting", "curves", "ops", "_keras", "_tracing", "_arguments", "reference", "_hyperparameters"]
FLOW += ["_loader", "_native", "_checkout"]
# What users call. Their type checkers read its signatures; mypy (`make lint`) checks the bodies.
PUBLIC = ["schedules", "_schedule", "callbacks", "steps", "plotting", "curves", "_loader"]
# What each folder of cc/ may include of the others, and of the frameworks.
INCLUDES = {
    "formula": r"formula/",
    "ops": r"tensorflow/core/framework/",
    "kernels": r"(formula|kernels)/|tensorflow/|xla/|absl/",
    "python": r"(formula|python)/|pybind11/",
}
STANDARD = r"[a-z_]+|dlfcn\.h"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", CC, ids=lambda path: path.name)
def test_includes_point_down_and_no_namespace_is_opened(path):
    allowed, text = INCLUDES[path.parent.name], path.read_text("utf-8")
    for include in re.findall(r'^#include [<"](.+)[>"]', text, re.MULTILINE):
        assert re.match(allowed, include) or re.fullmatch(STANDARD, include), include
    assert "using namespace" not in text


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_imports_point_down(path):
    name = path.stem
    for module in imports(path):
        assert not re.match(r"tensorflow\.python|keras\.src|tf_keras\.src", module), module
        target = re.match(r"lrops\.(\w+)", module)
        if path.parent.name != "lrops" or not target or target[1] not in FLOW:
            continue
        assert FLOW.index(name) < FLOW.index(target[1]), f"{name} imports {module}"
        assert target[1] != "reference" or name == "doctor", "only tests, benchmarks and the doctor compare with it"


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_says_its_types(name):
    tree = ast.parse((ROOT / "lrops" / f"{name}.py").read_text("utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for owner in [tree, *(node for node in classes if not node.name.startswith("_"))]:
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and re.fullmatch(r"__\w+__|[a-z]\w*", node.name):
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                arguments += filter(None, [node.args.vararg, node.args.kwarg])
                silent = [argument.arg for argument in arguments if argument.annotation is None]
                assert set(silent) <= {"self", "cls"} and node.returns, f"{node.name}: {silent}"


def test_tests_and_benchmarks_are_apart():
    """But tests/gpu may import the two benchmarks of a GPU."""
    for folder, other in (("tests", "benchmarks"), ("benchmarks", "tests")):
        modules = {path.stem for path in (ROOT / other).rglob("*.py")} - {"gpu_kernels", "gpu_overhead"}
        for path in (ROOT / folder).rglob("*.py"):
            assert not modules & set(imports(path)), path
