"""benchmarks.procedures"""
