"""Tests of the competitors: the same ones for every method, and one file for what is special."""
