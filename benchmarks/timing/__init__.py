"""Interleaved timings of two models, and what energy and clocks say beside them."""
