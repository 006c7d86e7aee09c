"""The facts of pyproject.toml that the build and the tools need. As a program, it prints them for the Makefile.

On Python 3.10 it needs tomli, which comes with the dependency group `build`.
"""

import shlex
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
VERSION = PROJECT["project"]["version"]
MINORS = PROJECT["tool"]["lrops"]["tensorflow"]
KERAS = PROJECT["tool"]["lrops"]["keras"]


def group(name: str) -> list[str]:
    """The requirements of a dependency group and of the groups that it includes."""
    parts = [
        group(entry["include-group"]) if isinstance(entry, dict) else [entry]
        for entry in PROJECT["dependency-groups"][name]
    ]
    return sum(parts, [])


def tensorflow(versions: str) -> list[str]:
    """Requirements for TensorFlow without CUDA. On ARM64 that is `tensorflow`, the only one there."""
    return [
        f'tensorflow-cpu{versions}; platform_machine == "x86_64"',
        f'tensorflow{versions}; platform_machine != "x86_64"',
    ]


def git(*arguments: str) -> str | None:
    """The output of git for this checkout; None outside one, such as in an sdist that lies in another repository."""
    # With both options, git reads a checkout that belongs to another user, such as a folder mounted into a container.
    command = ["git", f"--git-dir={ROOT / '.git'}", f"--work-tree={ROOT}", *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit() -> str:
    """The commit of the sources: a file in an sdist, else from git, else "unknown"."""
    if (ROOT / "COMMIT").exists():
        return (ROOT / "COMMIT").read_text().strip()
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or "unknown"


def cmake_facts() -> list[str]:
    """The options that tell CMake what `lrops.build_info` holds."""
    return [f"-DLROPS_VERSION={VERSION}", f"-DLROPS_COMMIT={commit()}", f"-DLROPS_KERAS={', '.join(KERAS)}"]


if __name__ == "__main__":
    facts = {
        "version": [VERSION],
        "minors": MINORS,
        "tensorflow": tensorflow(f"=={MINORS[-1]}.*"),
        "cmake": cmake_facts(),
    }
    print(shlex.join(facts[sys.argv[1]]))
