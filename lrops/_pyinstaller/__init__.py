"""Tells PyInstaller where the hook for lrops is. PyInstaller calls it by the entry point `pyinstaller40`."""

import os


def hook_dirs() -> list[str]:
    """The folder of hook-lrops.py."""
    return [os.path.dirname(__file__)]
