"""What the pages promise: links lead somewhere, the FAQ's blocks run, and the tour prints what is stored in it."""

import contextlib
import importlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from processes import run_snippet

import lrops

ROOT = Path(__file__).parents[2]
ADDRESS = re.search(r'^Source = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for folder, pattern in (("", "*.md"), ("docs", "*.md"), ("docs", "*.ipynb"), ("benchmarks", "*.md"))
    for path in sorted((ROOT / folder).glob(pattern))
]
TOUR = json.loads((ROOT / "docs/tour.ipynb").read_text("utf-8"))["cells"]


def text_of(path):
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".ipynb"):
        cells = (cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
        return "\n\n".join("".join(source) for source in cells)
    return text


def prose_of(path):
    """Without code, which may look like a link or a heading."""
    return re.sub(r"`[^`\n]+`", "code", re.sub(r"^```.*?^```", "", text_of(path), flags=re.MULTILINE | re.DOTALL))


def links_of(path):
    return re.findall(r"\]\(([^\s()]+)\)", prose_of(path))


def anchors_of(path):
    """What GitHub and the site call the headings of a page, and the names that the API page documents."""
    headings = re.findall(r"^#+ (.+)$", text_of(path), re.MULTILINE)
    words = (re.sub(r"\[(.+?)\]\(.+?\)", r"\1", heading).lower() for heading in headings)
    anchors = {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in words}
    return anchors | set(re.findall(r"^::: (\S+)$", text_of(path), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in links_of(page):
        address, _, anchor = link.partition("#")
        if ":" in address:
            assert not address.startswith(f"{ADDRESS}/blob/"), f"{link} must be relative, to work in a clone"
            continue
        target = (ROOT / page).parent / address if address else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target.resolve().relative_to(ROOT).as_posix()), link


def test_the_repository_has_one_address():
    others = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(".github/**/*.*")]
    for path in [*PAGES, *others, "mkdocs.yml", "CITATION.cff"]:
        for url in re.findall(r"https://[\w.]*github[\w.]*/[^\s\"'`<>()]+", text_of(path)):
            assert "lrops" not in url or url.startswith(ADDRESS), url


@pytest.fixture
def printed_by(tmp_path, monkeypatch):
    """A function that runs code and returns what it prints; the code shares its names."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}

    def run(code):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code, names)  # noqa: S102
        return output.getvalue()

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
    blocks = re.findall(r"^```python\n(.*?)^```", text_of("docs/faq.md"), re.MULTILINE | re.DOTALL)
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
    page = re.sub(r"\s+", " ", text_of("docs/troubleshooting.md"))
    assert without.returncode and all(said in without.stderr and said in page for said in words), without.stderr
    assert run_snippet(LOAD, file, "lrops", library, folder=tmp_path).stdout == "8\n"
