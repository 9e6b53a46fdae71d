"""Tests: mirror the tree, plus invariants/ (exactness) and repository/ (how the project is built)."""
