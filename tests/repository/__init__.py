"""Tests of how the project is built: who imports whom, sizes, docstrings, words, packaging."""
