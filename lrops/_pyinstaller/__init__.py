"""Tells PyInstaller where the hook for lrops is: the entry point `pyinstaller40` in pyproject.toml."""

import os


def hook_dirs() -> list[str]:
    """The folder of hook-lrops.py."""
    return [os.path.dirname(__file__)]
