"""Stands before the installed package in processes that tests start, as tests/conftest.py says."""

raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
