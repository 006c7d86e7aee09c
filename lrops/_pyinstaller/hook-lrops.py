"""What PyInstaller packs with a program that imports lrops: the libraries that are loaded by their path."""

from PyInstaller.utils.hooks import collect_dynamic_libs

binaries = collect_dynamic_libs("lrops", search_patterns=["_lrops_*.so"])
