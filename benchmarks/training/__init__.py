"""benchmarks.training"""
