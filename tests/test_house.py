"""The house rules that a machine can check: which way includes and imports point, how a file opens, what is banned.

Reads the checkout as text. It must not run anything.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CC = sorted(path for path in (ROOT / "cc").rglob("*") if path.suffix in (".h", ".cc", ".cu"))
PYTHON = sorted(
    path for folder in ("lrops", "examples", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
)

# Down the flow: a module may import only what stands after it.
FLOW = ["__main__", "doctor", "__init__", "benchmark", "callbacks", "steps", "schedules", "plotting", "_keras", "ops"]
FLOW += ["_tracing", "_loader", "_native", "reference"]
# What users call: a type checker of theirs reads it, and mypy (`make lint`) what is inside.
PUBLIC = ["schedules", "callbacks", "steps", "plotting", "_loader"]
# Only tests, benchmarks and the doctor compare with the reference.
REFERENCE_USERS = {"doctor"}
# What each folder of cc/ may include of the others, and of the frameworks.
INCLUDES = {
    "formula": r"formula/",
    "ops": r"tensorflow/core/framework/",
    "kernels": r"(formula|kernels)/|tensorflow/|xla/|absl/",
    "python": r"(formula|kernels)/|pybind11/",
}
STANDARD = r"[a-z_]+|dlfcn\.h"


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", CC, ids=ids(CC))
def test_includes_point_down(path):
    allowed = INCLUDES[path.parent.name]
    for include in re.findall(r'^#include [<"](.+)[>"]', path.read_text("utf-8"), re.MULTILINE):
        assert re.match(allowed, include) or re.fullmatch(STANDARD, include), include


def test_the_formula_includes_nothing():
    assert "#include" not in (ROOT / "cc/formula/warmup_cosine.h").read_text("utf-8").split("#define LROPS", 1)[1]


@pytest.mark.parametrize("path", CC, ids=ids(CC))
def test_no_namespace_is_opened_for_a_file(path):
    assert "using namespace" not in path.read_text("utf-8")


@pytest.mark.parametrize("path", PYTHON, ids=ids(PYTHON))
def test_imports_point_down(path):
    name = path.stem
    for module in imports(path):
        assert not re.match(r"tensorflow\.python|keras\.src|tf_keras\.src", module), module
        target = re.match(r"lrops\.(\w+)", module)
        if path.parent.name != "lrops" or not target or target[1] not in FLOW:
            continue
        assert FLOW.index(name) < FLOW.index(target[1]), f"{name} imports {module}"
        assert target[1] != "reference" or name in REFERENCE_USERS


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


@pytest.mark.parametrize("path", CC + PYTHON, ids=ids(CC + PYTHON))
def test_every_file_says_what_it_is(path):
    text = path.read_text("utf-8")
    opening = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text.split("\n#", 1)[0]
    assert opening and len(opening.splitlines()) >= 3, "what it is, who calls it, what it must not know"
