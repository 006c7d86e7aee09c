"""What the build files say twice is the same, and the sdist builds what is installed, in any folder, byte for byte.

Whole wheels are compared by `make reproducible` and tried by `make matrix`. It must not know what the files hold.
"""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from pyproject import MINORS, VERSION

import lrops
from lrops import _native

INSTALLED = Path(lrops.__file__).parent
ROOT = Path(__file__).parent.parent


def test_a_build_in_isolation_is_for_the_newest_minor():
    said = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.search(r'"tensorflow-cpu==(.+)\.\*"', said)[1] == MINORS[-1]


def test_the_minors_are_in_order():
    assert sorted(MINORS, key=lambda minor: [int(part) for part in minor.split(".")]) == MINORS


def test_the_changelog_has_the_version():
    assert f"\n## {VERSION} " in (ROOT / "CHANGELOG.md").read_text("utf-8")


def build(folder, *command):
    result = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, encoding="utf-8", timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(INSTALLED == ROOT / "lrops", reason="lrops is imported from the checkout, not installed")
def test_the_sdist_builds_what_is_installed(tmp_path, monkeypatch):
    folder = tmp_path / "a folder of another name: größer"
    folder.mkdir()
    build(ROOT, "-c", f"from scikit_build_core.setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})")
    (archive,) = folder.glob("lrops-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    sources = folder / archive.name.removesuffix(".tar.gz")
    (sources / "COMMIT").write_text(lrops.build_info["commit"])  # a later one may have changed none of the sources
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # where ninja is
    build(folder, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sources)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        built = {name: file.read(name) for name in file.namelist() if name.startswith("lrops/")}
    assert {Path(name).name for name in built} >= {"_lrops_ops.so", "_lrops_xla.so", Path(_native.__file__).name}
    for name, content in built.items():
        assert (INSTALLED.parent / name).read_bytes() == content, name
