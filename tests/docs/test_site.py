"""What the pages promise: the FAQ runs, the tour prints what is stored in it. `make docs` checks the links."""

import contextlib
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from processes import run_snippet
from pyproject import PROJECT

import lrops

ROOT = Path(__file__).parents[2]
ADDRESS = PROJECT["project"]["urls"]["Source"]
PAGES = ("*.md", "docs/*.md", "docs/*.ipynb", "benchmarks/*.md", ".github/**/*.*", "mkdocs.yml", "CITATION.cff")
TOUR = json.loads((ROOT / "docs/tour.ipynb").read_text("utf-8"))["cells"]


def test_the_repository_has_one_address():
    for path in (path for pattern in PAGES for path in ROOT.glob(pattern)):
        for url in re.findall(r"https://[\w.]*github[\w.]*/[^\s\"'`<>()]+", path.read_text("utf-8")):
            assert "lrops" not in url or url.startswith(ADDRESS), url
            assert not url.startswith(f"{ADDRESS}/blob/"), f"{url} must be relative, to work in a clone"


@pytest.fixture
def printed_by(tmp_path, monkeypatch, capsys):
    """A function that runs code and returns what it prints; the code shares its names."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}

    def run(code):
        exec(code, names)  # noqa: S102
        return capsys.readouterr().out

    yield run
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.mark.slow
def test_the_tour_prints_what_it_stores(printed_by):
    for cell in TOUR:
        if cell["cell_type"] == "code":
            stored = ("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")
            assert printed_by("".join(cell["source"])) == "".join(stored)


@pytest.mark.parametrize(
    "scope", [contextlib.nullcontext, lambda: tf.distribute.MirroredStrategy(["CPU:0"]).scope()], ids=["", "strategy"]
)
def test_the_faq_runs(scope, printed_by):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/faq.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    with scope():
        _, changed, first, logged, counted = (printed_by(block).splitlines() for block in blocks)
    assert changed == []
    assert first == ["[1.e-06 1.e-03]"]
    assert float(logged[-1].strip("[]")) == pytest.approx(5e-6)  # the second step of the new curve
    assert counted == ["20"]


LOAD = """
import importlib, sys
for name in sys.argv[2:]:
    keras = importlib.import_module(name)
print(keras.models.load_model(sys.argv[1]).optimizer.iterations.numpy())
"""


@pytest.mark.parametrize(
    ("library", "file", "words"),
    [
        ("keras", "model.keras", ["could not be deserialized properly", "Could not locate class 'WarmupCosineDecay'"]),
        ("tf_keras", "model.keras", ["Cannot convert 'WarmupCosineDecay' to EagerTensor of dtype float"]),
        ("tf_keras", "model.h5", ["Unknown decay: 'WarmupCosineDecay'"]),
    ],
)
def test_what_a_process_without_lrops_says_of_a_model(library, file, words, tmp_path):
    flavour = importlib.import_module(library)
    model = flavour.Sequential([flavour.Input((1,)), flavour.layers.Dense(1)])
    model.compile(flavour.optimizers.Adam(lrops.WarmupCosineDecay(1e-2, 4, 40)), "mse")
    model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=1, verbose=0)
    model.save(tmp_path / file)
    without = run_snippet(LOAD, file, library, folder=tmp_path)
    page = re.sub(r"\s+", " ", (ROOT / "docs/troubleshooting.md").read_text("utf-8"))
    assert without.returncode and all(said in without.stderr and said in page for said in words), without.stderr
    assert run_snippet(LOAD, file, "lrops", library, folder=tmp_path).stdout == "8\n"
