"""benchmarks.specs"""
