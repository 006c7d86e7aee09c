"""Makes PyInstaller pack the libraries that lrops loads by their path."""

from PyInstaller.utils.hooks import collect_dynamic_libs

binaries = collect_dynamic_libs("lrops", search_patterns=["_lrops_*.so"])
