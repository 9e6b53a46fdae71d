"""benchmarks.timing"""
