"""benchmarks.capabilities"""
