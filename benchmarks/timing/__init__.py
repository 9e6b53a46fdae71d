"""Interleaved timings of two models, with readings of energy and clocks."""
